package main

// key is what somebody has pressed: a character of ASCII, or one of these.
type key rune

const (
	keyInterrupt key = 0x03 // Ctrl-C
	keyTab       key = '\t'
)

const (
	keyEscape key = -1 - iota
	keyUp
	keyDown
	keyPageUp
	keyPageDown
	keyHome
	keyEnd
	keyOther // one that is not for us
)

// keyDecoder makes keys of what a terminal sends for them:
//
//	65                    e
//	1B                    Esc, if nothing follows
//	1B 5B 41, 1B 4F 41    an arrow
//	1B 5B 35 7E           PgUp
//	1B 5B 32 30 30 7E ... 1B 5B 32 30 31 7E   what somebody has pasted
//
// [ECMA-48] 5.4; what the sequences mean is XTerm's, which all others follow. What
// is pasted is no key: a "y" in it would be somebody's money.
type keyDecoder struct {
	state    keyState
	sequence string // its parameters
	pasting  bool
}

type keyState int

const (
	betweenKeys keyState = iota
	behindEscape
	inSequence // behind 1B 5B
	inSingle   // behind 1B 4F: one more
)

// sequences are the ends of sequences that mean a key, with their parameters.
var sequences = map[string]key{
	"A": keyUp, "B": keyDown, "H": keyHome, "F": keyEnd,
	"1~": keyHome, "4~": keyEnd, "5~": keyPageUp, "6~": keyPageDown, "7~": keyHome, "8~": keyEnd,
}

// The sequences around what is pasted, with the mode that [viewer]'s terminal has
// for it.
const (
	pasteBegins = "200~"
	pasteEnds   = "201~"
)

// take takes a byte and returns the key that ends with it, if one does.
func (d *keyDecoder) take(b byte) (k key, ok bool) {
	const escape = 0x1B
	switch d.state {
	case behindEscape:
		return d.behindEscape(b)
	case inSingle:
		return d.meaning(string(b))
	case inSequence:
		d.sequence += string(rune(b))
		if b < 0x40 || b > 0x7E {
			return 0, false
		}
		return d.meaning(d.sequence)
	}
	switch {
	case b == escape:
		d.state = behindEscape
		return 0, false
	case b >= 0x80:
		return d.press(keyOther)
	default:
		return d.press(key(b))
	}
}

func (d *keyDecoder) behindEscape(b byte) (key, bool) {
	switch b {
	case '[':
		d.state, d.sequence = inSequence, ""
		return 0, false
	case 'O':
		d.state = inSingle
		return 0, false
	case 0x1B:
		k, ok := d.press(keyEscape)
		d.state = behindEscape // the second one
		return k, ok
	default: // with Alt
		return d.press(keyOther)
	}
}

// meaning is the key of a sequence.
func (d *keyDecoder) meaning(sequence string) (key, bool) {
	d.state = betweenKeys
	switch sequence {
	case pasteBegins:
		d.pasting = true
		return 0, false
	case pasteEnds:
		d.pasting = false
		return 0, false
	}
	if k, known := sequences[sequence]; known {
		return d.press(k)
	}
	return d.press(keyOther)
}

// press is a key, unless it is pasted.
func (d *keyDecoder) press(k key) (key, bool) {
	d.state = betweenKeys
	return k, !d.pasting || k == keyInterrupt
}

// undecided reports whether it depends on what follows, or on nothing following,
// what was pressed.
func (d *keyDecoder) undecided() bool { return d.state != betweenKeys }

// nothingFollows is told a moment after the last byte.
func (d *keyDecoder) nothingFollows() (key, bool) {
	if d.state == betweenKeys {
		return 0, false
	}
	k := keyOther
	if d.state == behindEscape {
		k = keyEscape
	}
	return d.press(k)
}
