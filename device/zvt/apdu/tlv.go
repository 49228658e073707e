package apdu

import (
	"encoding/binary"
	"fmt"
	"strings"

	"terminalops/device/trace"
)

// TLV is a list of objects, in the order on the wire (chapter 9).
type TLV []Object

// Object is one TLV object: a tag and its value. A container's value is the
// bytes of the objects in it; see [Group] and Object.Children.
type Object struct {
	Tag   Tag
	Value []byte
}

// Tag is a TLV tag with all its bytes as on the wire: 0x24, 0x1F44, 0xFFD803.
type Tag uint32

// Tags (9.4), as far as code asks for them.
const (
	TagText             Tag = 0x07
	TagPrintAttribute   Tag = 0x09
	TagCommand          Tag = 0x0A
	TagPrinterWidth     Tag = 0x12
	TagCharset          Tag = 0x14
	TagMaxAPDU          Tag = 0x1A
	TagDiagnosisType    Tag = 0x1B
	TagFileBlock        Tag = 0x1C
	TagFileID           Tag = 0x1D
	TagFileOffset       Tag = 0x1E
	TagDisplayTexts     Tag = 0x24
	TagPrintTexts       Tag = 0x25
	TagCommands         Tag = 0x26
	TagCharsets         Tag = 0x27
	TagFile             Tag = 0x2D
	TagTimestamp        Tag = 0x2E // of the transaction
	TagTerminalClock    Tag = 0x34
	TagReboot           Tag = 0x35 // the 24-hour reboot
	TagDevice           Tag = 0xE4
	TagFileSize         Tag = 0x1F00
	TagReceiptID        Tag = 0x1F01
	TagReceiptType      Tag = 0x1F07
	TagDate             Tag = 0x1F0E
	TagTime             Tag = 0x1F0F
	TagManufacturerCode Tag = 0x1F16
	TagManufacturerText Tag = 0x1F17
	TagReceiptNumber    Tag = 0x1F1F // never to be sent: it may reverse the last payment
	TagEndOfDayMode     Tag = 0x1F26
	TagDeviceName       Tag = 0x1F40
	TagSoftwareVersion  Tag = 0x1F41
	TagSerialNumber     Tag = 0x1F42
	TagDeviceState      Tag = 0x1F43
	TagTID              Tag = 0x1F44
	TagLocks            Tag = 0x1F55
	TagSequence         Tag = 0x1F73
	TagFileName         Tag = 0x1F8000
	TagFileMIME         Tag = 0x1F8001
	TagNoDownload       Tag = 0xDF01 // [CC] in 06 50: bit 0 suppresses the download
)

// tagNames are for String. Only the values of tags in here are shown.
var tagNames = map[Tag]struct {
	name string
	show func([]byte) string
}{
	TagText:             {"text", showAuto},
	TagPrintAttribute:   {"attribute", showDigits},
	TagCommand:          {"command", showCommand},
	TagPrinterWidth:     {"printer width", showDigits},
	TagCharset:          {"character set", showDigits},
	TagMaxAPDU:          {"max. APDU", showUint},
	TagDiagnosisType:    {"diagnosis type", showDigits},
	TagFileID:           {"file", showDigits},
	TagFileOffset:       {"offset", showUint},
	TagFileSize:         {"size", showUint},
	TagReceiptID:        {"receipt id", showDigits},
	TagReceiptType:      {"receipt type", showDigits},
	TagDate:             {"date", showDate},
	TagTime:             {"time", showTime},
	TagManufacturerCode: {"manufacturer code", showDigits},
	TagManufacturerText: {"manufacturer text", showText},
	TagReceiptNumber:    {"receipt number", showDigits},
	TagEndOfDayMode:     {"end-of-day mode", showDigits},
	TagDeviceName:       {"device", showText},
	TagSoftwareVersion:  {"software version", showText},
	TagSerialNumber:     {"serial number", showDigits},
	TagDeviceState:      {"device state", showDigits},
	TagTID:              {"TID", showDigits},
	TagLocks:            {"locks", showDigits},
	TagSequence:         {"sequence", showDigits},
	TagNoDownload:       {"no download", showDigits},
}

func showAuto(b []byte) string { return fmt.Sprintf("%q", trace.Mask(Auto.Decode(b))) }

func showUint(b []byte) string {
	if n, ok := parseUint(b); ok {
		return trace.Mask(fmt.Sprint(n)) // nobody says that it is what the tag says
	}
	return showDigits(b)
}

func showCommand(b []byte) string {
	if len(b) != 2 {
		return showDigits(b)
	}
	return Control(binary.BigEndian.Uint16(b)).Hex()
}

// IsContainer reports whether the tag is one of the containers of chapter 9. A
// tag with the constructed bit alone is not: Feig's FF40 has it and holds bytes.
func (t Tag) IsContainer() bool {
	return t >= 0x23 && t <= 0x2F || t >= 0x30 && t <= 0x35 || t >= 0x60 && t <= 0x6A || t >= 0xE1 && t <= 0xE9
}

// String is the tag in hexadecimal digits.
func (t Tag) String() string { return digits(t.bytes()) }

func (t Tag) bytes() []byte { return minimalUint(uint64(t)) }

// ParseTLV reads a list of objects. It does not look into containers. With an
// error it returns the objects before the break.
func ParseTLV(b []byte) (TLV, error) {
	objects, err := parseObjects(b, false)
	if err == nil {
		return objects, nil
	}
	// 1F80 to 1F83: the specification prints these tags with two bytes, but by
	// its own rule they have a third (9.3.1, 9.4.1). Both occur.
	if short, e := parseObjects(b, true); e == nil {
		return short, nil
	}
	return objects, err
}

// maxDepth is how deep containers are opened. The specification's own lie three
// deep; without an end a block of nothing but containers would be costly.
const maxDepth = 8

// checkTLV reads the objects of b and of all known containers in it. Offsets in
// the error count from the first byte of the container named before them.
func checkTLV(b []byte, depth int) error {
	objects, err := ParseTLV(b)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if !o.Tag.IsContainer() {
			continue
		}
		err := fmt.Errorf("more than %d containers in each other", maxDepth)
		if depth < maxDepth {
			err = checkTLV(o.Value, depth+1)
		}
		if err != nil {
			return fmt.Errorf("container %v: %w", o.Tag, err)
		}
	}
	return nil
}

func parseObjects(b []byte, twoByte1F80 bool) (TLV, error) {
	var objects TLV
	for at := 0; at < len(b); {
		tag, n, err := readTag(b[at:], twoByte1F80)
		if err != nil {
			return objects, fmt.Errorf("tag at offset %d: %w", at, err)
		}
		length, head, err := readBER(b[at+n:])
		if left := len(b) - at - n - head; err == nil && left < length {
			err = fmt.Errorf("length %d wanted, %d bytes left", length, left)
		}
		if err != nil {
			return objects, fmt.Errorf("tag %v at offset %d: %w", tag, at, err)
		}
		at += n + head + length
		objects = append(objects, Object{Tag: tag, Value: b[at-length : at]})
	}
	return objects, nil
}

// readTag reads a tag of up to four bytes (9.4.1) and says how many it took.
func readTag(b []byte, twoByte1F80 bool) (Tag, int, error) {
	const (
		more    = 0x1F // in the first byte: the number is in those that follow
		another = 0x80 // in those: another one follows
		maxLen  = 4
	)
	tag := Tag(b[0])
	if b[0]&more != more {
		return tag, 1, nil
	}
	for n := 1; n < maxLen; n++ {
		if len(b) == n {
			return 0, 0, fmt.Errorf("another byte wanted after % X, none left", b)
		}
		tag = tag<<8 | Tag(b[n])
		if b[n]&another == 0 || twoByte1F80 && tag >= 0x1F80 && tag <= 0x1F83 {
			return tag, n + 1, nil
		}
	}
	return 0, 0, fmt.Errorf("at most %d bytes wanted, % X goes on", maxLen, b[:maxLen])
}

// readBER reads the length of a TLV object (9.4.2): the length of the value, and
// of the length itself.
func readBER(b []byte) (length, head int, err error) {
	if len(b) == 0 {
		return 0, 0, fmt.Errorf("length wanted, nothing left")
	}
	switch {
	case b[0] < 0x80:
		return int(b[0]), 1, nil
	case b[0] == 0x81 && len(b) >= 2:
		return int(b[1]), 2, nil
	case b[0] == 0x82 && len(b) >= 3:
		return int(binary.BigEndian.Uint16(b[1:])), 3, nil
	case b[0] == 0x81 || b[0] == 0x82:
		return 0, 0, fmt.Errorf("%d length bytes wanted after %02X, %d left", b[0]-0x80, b[0], len(b)-1)
	}
	return 0, 0, fmt.Errorf("length 00 to 7F, 81 or 82 wanted, %02X found", b[0])
}

// appendBER writes a length in the shortest form.
func appendBER(b []byte, length int) []byte {
	switch {
	case length < 0x80:
		return append(b, byte(length))
	case length <= 0xFF:
		return append(b, 0x81, byte(length))
	case length <= maxExtended:
		return binary.BigEndian.AppendUint16(append(b, 0x82), uint16(length))
	}
	panic(fmt.Sprintf("apdu: TLV value of %d bytes, at most %d fit", length, maxExtended))
}

// Marshal gives the bytes of the list, lengths in the shortest form.
func (t TLV) Marshal() []byte {
	b := []byte{} // not nil: an empty value is what Parse makes of one
	for _, o := range t {
		b = append(b, o.Tag.bytes()...)
		b = appendBER(b, len(o.Value))
		b = append(b, o.Value...)
	}
	return b
}

// Group makes a container object.
func Group(tag Tag, objects ...Object) Object {
	return Object{Tag: tag, Value: TLV(objects).Marshal()}
}

// Children returns the objects in a container, nil for other objects. Of a
// broken container it returns those before the break.
func (o Object) Children() TLV {
	if !o.Tag.IsContainer() {
		return nil
	}
	t, _ := ParseTLV(o.Value) // Parse has said what is wrong with it
	return t
}

// Find returns the first object at the end of a path of tags:
// Find(TagDevice, TagSoftwareVersion) is 1F41 in E4.
func (t TLV) Find(path ...Tag) (o Object, ok bool) {
	for _, tag := range path {
		if o, ok = t.first(tag); !ok {
			return Object{}, false
		}
		t = o.Children()
	}
	return o, ok
}

func (t TLV) first(tag Tag) (Object, bool) {
	for _, o := range t {
		if o.Tag == tag {
			return o, true
		}
	}
	return Object{}, false
}

// All returns the objects with a tag, in their order.
func (t TLV) All(tag Tag) TLV {
	var found TLV
	for _, o := range t {
		if o.Tag == tag {
			found = append(found, o)
		}
	}
	return found
}

// Uint returns the value as a binary number, the highest byte first.
func (o Object) Uint() (n uint64, ok bool) { return parseUint(o.Value) }

// Text returns the value as text. It is not masked.
func (o Object) Text(c Charset) string { return c.Decode(o.Value) }

// Date returns the date (1F0E) in a timestamp container: TagTimestamp,
// TagTerminalClock or TagReboot.
func (t TLV) Date(container Tag) (d Date, ok bool) {
	o, ok := t.Find(container, TagDate)
	if !ok {
		return Date{}, false
	}
	return parseDate(o.Value)
}

// Time returns the time (1F0F) in a timestamp container.
func (t TLV) Time(container Tag) (tm Time, ok bool) {
	o, ok := t.Find(container, TagTime)
	if !ok {
		return Time{}, false
	}
	return parseTime(o.Value)
}

// Timestamp makes a timestamp container.
func Timestamp(container Tag, d Date, t Time) Object {
	return Group(container,
		Object{TagDate, bcd(int64(d.Year*10000+d.Month*100+d.Day), 4)},
		Object{TagTime, t.bytes()})
}

// String describes the objects for people.
func (t TLV) String() string { return t.describe(0) }

func (t TLV) describe(depth int) string {
	said := make([]string, len(t))
	texts := maskTexts(t.All(TagText))
	for i, o := range t {
		if o.Tag == TagText {
			said[i] = fmt.Sprintf("%s %q", tagNames[TagText].name, texts[0])
			texts = texts[1:]
			continue
		}
		said[i] = o.describe(depth)
	}
	return "{" + strings.Join(said, ", ") + "}"
}

// maskTexts are texts masked together: one may go on in the next.
func maskTexts(texts TLV) []string {
	lines := make([]string, len(texts))
	for i, o := range texts {
		lines[i] = o.Text(Auto)
	}
	return trace.MaskLines(lines)
}

// String is the name of the object and its value, or only the tag and the
// length where the value is unknown.
func (o Object) String() string { return o.describe(0) }

func (o Object) describe(depth int) string {
	if o.Tag.IsContainer() && depth < maxDepth {
		return o.Tag.String() + o.Children().describe(depth+1)
	}
	if known, ok := tagNames[o.Tag]; ok {
		return known.name + " " + known.show(o.Value)
	}
	return fmt.Sprintf("%v (%d bytes)", o.Tag, len(o.Value))
}
