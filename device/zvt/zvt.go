// Package zvt carries out operations on a payment terminal that speaks ZVT
// (PA00P015 [S15], PA00P016 [S16]): it is the electronic cash register (ECR) of
// those documents, for administration only.
//
//	Execute                              ECR          PT
//	open the link                         |            |
//	06 00  Registration                   | <--------> |   all of this may be
//	05 01  Status-Enquiry: ready?         | <--------> |   repeated, and fail
//	Begin                                 |            |   Started is on disk
//	06 50, 08 10, 08 01 (or 08 11 ...)    | ---------> |   once, never again
//	80 00 00                              | <--------- |   the terminal has the word
//	04 FF, 04 0F, 06 D1, 06 D3 ...        | <--------- |   Record, then answer
//	80 00 00                              | ---------> |
//	06 0F, or 06 1E                       | <--------- |
//	close the link                        |            |
//
// Never a log-off: the till owns the terminal, and a log-off would end its
// registration. Never a payment, a reversal or their parameters (1F1F). Never an
// abort (06 B0), a deletion (08 12) or another repair.
//
// The packages below: frame for the bytes on the line, apdu for the messages,
// zvttest plays the terminal. In this one: dialogue.go is the loop that every
// command runs in, evidence.go what is written down of it, tap.go what people see
// of it, endofday.go, update.go, menu.go and logs.go are the operations, resolve.go
// finds out how one ended that nobody saw end.
package zvt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// What the shop does with the receipt of an end of day.
const (
	ReceiptReport   = "report"   // its lines come to us and are part of the result
	ReceiptTerminal = "terminal" // the terminal prints it, the result has none
)

// Options are the options of New. The zero value of all but Open is usable.
type Options struct {
	// Open opens the link. Its errors may wrap device.ErrBusy (another program
	// has the port); any other counts as device.ErrUnreachable.
	Open func(ctx context.Context) (frame.Stream, error)
	// Serial: frames as on a serial line; else APDUs alone, as on TCP.
	Serial bool
	// Baud is the speed of a serial line in bit/s; 0 where it does not matter.
	Baud int
	// T1 to T4 are the timers of [S16], zvt.md 1.4. 0 is the specification's
	// value: 200 ms, 5 s, 5 s, 180 s. A USB adapter needs a T1 of 1 s.
	T1, T2, T3, T4 time.Duration
	// Password is the terminal's, six digits; empty is 000000.
	Password string
	// Currency is an ISO 4217 number; 0 is 978, the euro.
	Currency int
	// ConfigByte is that of the registration, see apdu.Config; 0 is 8C. A
	// registration replaces the till's: where a till registers, too, it is the
	// till's byte.
	ConfigByte byte
	// Receipt is ReceiptReport (the default) or ReceiptTerminal. The latter
	// takes the bit 04 from the ConfigByte.
	Receipt string
	// Charset is how texts of the terminal are read; empty is apdu.Auto.
	Charset apdu.Charset
	// Location is where the terminal's clock is; nil is time.Local.
	Location *time.Location
	// UpdateWait is how long a started update is waited for; 0 is 40 min.
	UpdateWait time.Duration
	// Logger takes what a person at 3 a.m. needs; nil is nothing.
	Logger *slog.Logger
	// Tap takes all that goes over the line, masked, as events of Lane; nil is
	// nothing, and costs nothing.
	Tap  *trace.Tap
	Lane string
}

const defaultConfig = apdu.ConfigPrintLines | apdu.ConfigIntermediateStatus | apdu.ConfigAdministrationReceipts

// Terminal is one terminal. It implements device.Terminal and device.Attendant.
type Terminal struct {
	o        Options
	password apdu.Password
	currency apdu.Currency

	// kept is a link that is still open between two calls: the terminal has, or
	// may have, the word. Execute, Resolve and Attend are called one at a time.
	kept *dialogue
	// lastEndOfDay is what the last one said that this process saw.
	lastEndOfDay *totals

	mu    sync.Mutex
	known device.Description
}

// New makes a Terminal. It opens nothing.
func New(o Options) (*Terminal, error) {
	if o.Open == nil {
		return nil, errors.New("option Open: a function that opens the link wanted, none given")
	}
	for name, d := range map[string]time.Duration{"T1": o.T1, "T2": o.T2, "T3": o.T3, "T4": o.T4, "UpdateWait": o.UpdateWait} {
		if d < 0 {
			return nil, fmt.Errorf("option %s: a positive duration wanted, %v given", name, d)
		}
	}
	if o.Baud < 0 {
		return nil, fmt.Errorf("option Baud: a positive number of bit/s wanted, %d given", o.Baud)
	}
	setDefaults(&o)
	password, err := apdu.ParsePassword(o.Password)
	if err != nil {
		return nil, fmt.Errorf("option Password: %w", err)
	}
	currency, err := apdu.NewCurrency(o.Currency)
	if err != nil {
		return nil, fmt.Errorf("option Currency: %w", err)
	}
	if o.Charset, err = apdu.ParseCharset(string(o.Charset)); err != nil {
		return nil, fmt.Errorf("option Charset: %w", err)
	}
	switch o.Receipt {
	case ReceiptReport:
	case ReceiptTerminal:
		o.ConfigByte &^= byte(apdu.ConfigAdministrationReceipts)
	default:
		return nil, fmt.Errorf("option Receipt: %q or %q wanted, %q given", ReceiptReport, ReceiptTerminal, o.Receipt)
	}
	return &Terminal{
		o: o, password: password, currency: currency,
		known: device.Description{Protocol: "zvt", Operations: device.Operations()},
	}, nil
}

func setDefaults(o *Options) {
	setDefault(&o.T1, 200*time.Millisecond)
	setDefault(&o.T2, 5*time.Second)
	setDefault(&o.T3, 5*time.Second)
	setDefault(&o.T4, 180*time.Second)
	setDefault(&o.Password, "000000")
	setDefault(&o.Currency, 978)
	setDefault(&o.ConfigByte, byte(defaultConfig))
	setDefault(&o.Receipt, ReceiptReport)
	setDefault(&o.Charset, apdu.Auto)
	setDefault(&o.Location, time.Local)
	setDefault(&o.UpdateWait, 40*time.Minute)
	setDefault(&o.Logger, slog.New(slog.DiscardHandler))
}

func setDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}

// Describe implements device.Terminal.
func (t *Terminal) Describe() device.Description {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known
}

// Execute implements device.Terminal.
func (t *Terminal) Execute(ctx context.Context, r device.Request, w device.Witness) (device.Outcome, error) {
	t.drop()
	d, err := t.open(ctx)
	if err != nil {
		return device.Outcome{}, err
	}
	l := t.ledger(r.Operation, w, nil)
	outcome, err := t.perform(ctx, d, l, r)
	if outcome.Attend || l.begun && t.mayStillTalk(ctx, d, l, err) {
		t.kept = d
	} else {
		t.hangUp(d)
	}
	return outcome, err
}

// perform carries out an operation on an open link.
func (t *Terminal) perform(ctx context.Context, d *dialogue, l *ledger, r device.Request) (device.Outcome, error) {
	status, err := t.prepare(ctx, d, l, nil)
	if errors.Is(err, device.ErrBusy) && d.serial {
		if came, _ := d.awaitEnd(ctx); came && d.drain(ctx) == nil {
			status, err = t.prepare(ctx, d, l, nil)
		}
	}
	if no := (*refusal)(nil); errors.As(err, &no) {
		return device.Outcome{Failure: refused(no.code)}, nil
	}
	if err != nil {
		return device.Outcome{}, beforeBegin(err)
	}
	switch r.Operation {
	case device.EndOfDay:
		err = t.act(ctx, d, l, mark{Last: t.lastEndOfDay}, exchange{command: apdu.EndOfDay{Password: t.password}})
		if err == nil {
			d.linger(ctx, l)
			t.askTotals(ctx, d, l, t.lastEndOfDay, l.account().acceptedAt.Add(time.Since(l.taken)))
		}
	case device.CheckUpdate:
		err = t.act(ctx, d, l, mark{Version: status.SoftwareVersion}, exchange{command: apdu.SoftwareUpdate{}})
	case device.OpenMenu:
		err = t.openMenu(ctx, d, l)
	case device.SendLogs:
		if err := l.begin(nil); err != nil {
			return device.Outcome{}, fmt.Errorf("read logs: %w", err)
		}
		return t.readLogs(ctx, d, l, r.Spool)
	default:
		return device.Outcome{}, fmt.Errorf("operation %q: one of %v wanted", r.Operation, device.Operations())
	}
	if outcome, known := t.outcome(l); known {
		return outcome, nil
	}
	if err == nil {
		err = errors.New("the terminal has begun, its end is still to be seen")
	}
	return device.Outcome{}, err
}

// act sends the one command that makes the terminal act, and follows it to its
// end.
//
// Here runs the border between "not started" and "in doubt", and money depends
// on it. Who says "not started" of an end of day that ran lets an operator start
// a second one; who says "in doubt" of one that did not run makes him wait for
// nothing. Only the first is expensive, so everything is in doubt that is not
// proven. In the order in which it happens:
//
//	Begin fails               Not started. Nothing was written, and nothing will
//	                          be: we return here.
//	Begin returns nil         From now on the journal says Started. A crash from
//	                          here on finds the operation in doubt, even if not a
//	                          byte was written: nobody is there to know it.
//	WriteOnce returns ...
//	  ErrNothingWritten       Not started: no byte has left this process.
//	  ErrRejected             Not started: the terminal answered all three copies
//	                          by NAK, so none of them came to its application
//	                          ([S16]; zvt.md 1.4). These two, and nothing else.
//	  ErrNoAcknowledgement    In doubt: the terminal may have taken it, and its
//	                          ACK got lost. We go on listening, because then it
//	                          will go on talking; 84 xx counts for nothing now,
//	                          it may answer something earlier.
//	  another error           In doubt: some bytes have left, and the line is
//	                          gone. On TCP part of an APDU is no command, but
//	                          what "n bytes written" is worth when the cable was
//	                          pulled nobody knows.
//	  nil                     In doubt until an answer comes.
//	84 xx comes               The terminal refused: an Outcome, executed no. It
//	                          is recorded first, like everything.
//	80 00 comes               The terminal acts. There is no "not started" any
//	                          more, whatever happens to the line.
//	T3, T4, the line, ctx     In doubt: what the evidence says, Resolve says.
//
// A terminal that is busy (84 9C) is not asked again with the same operation:
// that would be a second command for one Begin.
func (t *Terminal) act(ctx context.Context, d *dialogue, l *ledger, m mark, x exchange) error {
	x.hear = l.hear
	if err := l.begin(m); err != nil {
		return fmt.Errorf("%v: %w", x, err)
	}
	d.acted = true
	err := d.conn.WriteOnce(ctx, x.command.Marshal())
	switch {
	case errors.Is(err, frame.ErrNothingWritten), errors.Is(err, frame.ErrRejected):
		return fmt.Errorf("%v: %w: %w", x, device.ErrNotStarted, err)
	case err != nil && !errors.Is(err, frame.ErrNoAcknowledgement):
		return fmt.Errorf("%v: %w", x, err)
	}
	d.acknowledged = err == nil
	_, err = d.follow(ctx, x, stance{acknowledged: d.acknowledged, patience: d.t3})
	return err
}

// outcome is how the operation ended, if the evidence shows it.
func (t *Terminal) outcome(l *ledger) (o device.Outcome, known bool) {
	a := l.account()
	switch l.operation {
	case device.EndOfDay:
		o, known = t.endOfDay(a)
		if known && o.Failure == nil {
			t.lastEndOfDay = a.totals
			if a.repeated != nil {
				t.lastEndOfDay = a.repeated
			}
		}
	case device.CheckUpdate:
		return t.update(a)
	case device.OpenMenu:
		return t.menu(a)
	}
	return o, known
}

// ledger goes on with the evidence of an operation.
func (t *Terminal) ledger(op device.Operation, w device.Witness, evidence []device.Evidence) *ledger {
	return &ledger{
		operation: op, witness: w, charset: t.o.Charset, log: t.o.Logger,
		evidence: append([]device.Evidence(nil), evidence...),
	}
}

// open opens the link. What a serial terminal still had to say from before is
// drained: it would be taken for the answer to something new (zvt.md 5.1).
func (t *Terminal) open(ctx context.Context) (*dialogue, error) {
	d, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.drain(ctx); err != nil {
		t.hangUp(d)
		return nil, beforeBegin(err)
	}
	return d, nil
}

func (t *Terminal) dial(ctx context.Context) (*dialogue, error) {
	stream, err := t.o.Open(ctx)
	if err != nil {
		t.remark("link not opened: %v", err)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, device.ErrBusy), errors.Is(err, device.ErrUnreachable):
		return nil, err
	default:
		return nil, fmt.Errorf("%w: %w", device.ErrUnreachable, err)
	}
	return t.dialogue(stream), nil
}

// dialogue is one on an open link.
func (t *Terminal) dialogue(stream frame.Stream) *dialogue {
	t.remark("link opened")
	var conn frame.Conn
	if t.o.Serial {
		conn = frame.Serial(stream, frame.SerialOptions{T1: t.o.T1, T2: t.o.T2, Baud: t.o.Baud, Watch: t.watch()})
	} else {
		conn = frame.TCP(stream, frame.TCPOptions{T3: t.o.T3, Watch: t.watch()})
	}
	return &dialogue{conn: conn, serial: t.o.Serial, t3: t.o.T3, t4: t.o.T4, log: t.o.Logger}
}

// drain empties the link of what is no answer to what comes next. A new TCP
// connection is empty.
func (d *dialogue) drain(ctx context.Context) error {
	if !d.serial && d.probes == 0 {
		return nil
	}
	for range maxEnds {
		last, err := d.conn.Drain(ctx)
		if err != nil || last == nil {
			return err
		}
		m, _ := apdu.Parse(last) // as far as it can be read
		if isEnd, err := d.answerEnd(ctx, m); err != nil || !isEnd {
			return err
		}
	}
	return nil
}

// maxEnds is how often a terminal may repeat its end and be answered, before a
// new command is tried all the same.
const maxEnds = 4

func (t *Terminal) hangUp(d *dialogue) {
	if err := d.conn.Close(); err != nil {
		t.o.Logger.Debug("close", "error", err) // nothing depends on it
	}
	t.remark("link closed")
}

// drop closes the link that was kept, if there is one.
func (t *Terminal) drop() {
	if t.kept != nil {
		t.hangUp(t.kept)
		t.kept = nil
	}
}

// refusal is a terminal's no to a command that does not make it act.
type refusal struct {
	command apdu.Control
	code    apdu.Code
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%v refused: %v", r.command, r.code)
}

// unsupported reports whether err says that the terminal has no such command.
func unsupported(err error) bool {
	no := (*refusal)(nil)
	return errors.As(err, &no) && no.code == apdu.CodeNotPossible
}

// inquire has a command carried out that may be repeated. It returns the
// completion, or a *refusal, or device.ErrBusy where the terminal says so or
// does not give the word back.
func (t *Terminal) inquire(ctx context.Context, d *dialogue, x exchange) (apdu.Completion, error) {
	end, err := d.ask(ctx, x)
	if errors.Is(err, errSilent) {
		return apdu.Completion{}, fmt.Errorf("%w, and has the word: %w", err, device.ErrBusy)
	}
	if err != nil {
		return apdu.Completion{}, err
	}
	no := &refusal{command: x.command.Control()}
	switch end := end.(type) {
	case apdu.Completion:
		return end, nil
	case apdu.Nack:
		no.code = end.Reason()
	case apdu.Abort:
		no.code = end.Code
	}
	if no.code == apdu.CodePleaseWait {
		return apdu.Completion{}, fmt.Errorf("%v: %w", no, device.ErrBusy) // it is no refusal
	}
	return apdu.Completion{}, no
}

// prepare registers and asks the status. It returns when the terminal can take
// the acting command. late is for a terminal that may be busy with something
// earlier, else nil.
//
// A locked terminal (zvt.md 4.18) is not ours to judge: it knows best what it
// can do in its lock, and refuses with a code.
func (t *Terminal) prepare(ctx context.Context, d *dialogue, l *ledger, late func(apdu.Message)) (apdu.Status, error) {
	hear := l.overhear(apdu.ControlRegistration)
	_, err := t.inquire(ctx, d, exchange{command: t.registration(), hear: hear, late: late})
	if err != nil && !unsupported(err) { // [S16]: a registration is optional
		return apdu.Status{}, err
	}
	status, err := t.status(ctx, d, l, late)
	if err != nil {
		return apdu.Status{}, err
	}
	switch status.Code {
	case apdu.StatusPleaseWait, apdu.StatusRemoteMaintenance, apdu.StatusCardInserted, apdu.StatusCardNotRemoved, statusPartialGoods:
		return status, fmt.Errorf("%w: %v", device.ErrBusy, status.Code)
	case apdu.StatusReady:
	default:
		t.o.Logger.Warn("terminal not ready", "status", status.Code)
	}
	return status, nil
}

// statusPartialGoods: a vending machine hands out what was paid for.
const statusPartialGoods apdu.StatusCode = 0x9D

// registration is 06 00 (zvt.md 4.0): print lines as blocks, 40 columns, blocks
// of at most 1 KiB.
func (t *Terminal) registration() apdu.Registration {
	return apdu.Registration{
		Password: t.password,
		Config:   apdu.Config(t.o.ConfigByte),
		Currency: &t.currency,
		Fields: apdu.Fields{apdu.Container(
			apdu.Commands(apdu.ControlPrintTextBlock),
			apdu.Object{Tag: apdu.TagPrinterWidth, Value: []byte{0x40}},
			apdu.Object{Tag: apdu.TagMaxAPDU, Value: []byte{0x04, 0x00}},
		)},
	}
}

// status asks 05 01 and remembers what the terminal says of itself. Some
// terminals do not know it; they say nothing against going on.
func (t *Terminal) status(ctx context.Context, d *dialogue, l *ledger, late func(apdu.Message)) (apdu.Status, error) {
	command := apdu.StatusEnquiry{Password: t.password}
	end, err := t.inquire(ctx, d, exchange{command: command, hear: l.overhear(command.Control()), late: late})
	if unsupported(err) {
		return apdu.Status{}, nil
	}
	if err != nil {
		return apdu.Status{}, err
	}
	status, err := end.Status()
	if err != nil {
		t.o.Logger.Warn("status not read to its end", "error", err)
	}
	status.SoftwareVersion = plain(status.SoftwareVersion)
	t.learn(status)
	return status, nil
}

// learn remembers what a terminal says of itself.
func (t *Terminal) learn(s apdu.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	remember(&t.known.SoftwareVersion, plain(s.SoftwareVersion))
	tlv := s.TLV()
	if o, ok := tlv.Find(apdu.TagDevice, apdu.TagDeviceName); ok {
		remember(&t.known.Model, plain(o.Text(apdu.ASCII)))
	}
	if o, ok := tlv.Find(apdu.TagDevice, apdu.TagSoftwareVersion); ok {
		remember(&t.known.SoftwareVersion, plain(o.Text(apdu.ASCII)))
	}
	if o, ok := tlv.Find(apdu.TagDevice, apdu.TagSerialNumber); ok {
		remember(&t.known.SerialNumber, plain(fmt.Sprintf("%X", o.Value)))
	}
}

func remember(what *string, said string) {
	if said != "" {
		*what = said
	}
}

// beforeBegin puts an error of the dialogue in the engine's words, where it is
// certain that the terminal was not asked to act.
func beforeBegin(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, device.ErrBusy), errors.Is(err, device.ErrUnreachable):
		return err
	case errors.Is(err, frame.ErrLinkLost), errors.Is(err, frame.ErrNoAcknowledgement), errors.Is(err, errNoAnswer):
		return fmt.Errorf("%w: %w", device.ErrUnreachable, err)
	}
	return err
}
