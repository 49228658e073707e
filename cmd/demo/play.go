package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const operationsPath = "/v1/admin/terminals/operations"

// apiOperation is what the demo reads of the API's answers.
type apiOperation struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Effect   string `json:"effect"`
	Progress *struct {
		Message string `json:"message"`
	} `json:"progress"`
	Result struct {
		PurchasesCount  *int64 `json:"purchases_count"`
		PurchasesAmount *int64 `json:"purchases_amount"`
		Currency        string `json:"currency"`
		ByCardScheme    []struct {
			Scheme string `json:"scheme"`
			Count  int64  `json:"count"`
			Amount int64  `json:"amount"`
		} `json:"by_card_scheme"`
		Update   string `json:"update"`
		Before   string `json:"software_version_before"`
		After    string `json:"software_version"`
		OpenedAt string `json:"opened_at"`
	} `json:"result"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// play runs the four operations, one after the other.
func (s *stage) play(ctx context.Context) error {
	acts := []struct {
		operation, story string
		check            func(context.Context, apiOperation) error
	}{
		{"end_of_day", "the terminal closes its day", s.checkTotals},
		{"send_logs", "the terminal's logs go to the cloud", s.checkLogs},
		{"check_update", "the terminal looks for an update, installs it, and is asked for its version again", s.checkUpdate},
		{"open_menu", "the terminal opens its service menu", s.checkMenu},
	}
	for i, a := range acts {
		fmt.Fprintf(s.out, "\n%d. %s: %s\n", i+1, a.operation, a.story)
		began := time.Now()
		o, err := s.operate(ctx, a.operation)
		if err != nil {
			return fmt.Errorf("%s: %w", a.operation, err)
		}
		if o.Status != "COMPLETED" {
			fmt.Fprintf(s.out, "   %s\n", o.Status)
			return fmt.Errorf("%s: %s, want COMPLETED: %s", a.operation, o.Status, o.reason())
		}
		fmt.Fprintf(s.out, "   %s (%s) after %.1f s\n", o.Status, o.Effect, time.Since(began).Seconds())
		if err := a.check(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", a.operation, err)
		}
	}
	fmt.Fprintln(s.out, "\nAll four are COMPLETED.")
	return nil
}

func (o apiOperation) reason() string {
	if o.Error == nil {
		return "no reason was given"
	}
	return o.Error.Code + ": " + o.Error.Message
}

// operate asks for an operation and follows it to its end.
func (s *stage) operate(ctx context.Context, name string) (apiOperation, error) {
	_, heard := s.heard.since(0)
	body := fmt.Sprintf(`{"terminal_id":%q,"operation":%q}`, terminal, name)
	answer, err := s.request(ctx, http.MethodPost, operationsPath, body)
	// A dispatcher that has just started may not be connected to its broker.
	for until := time.Now().Add(connectTimeout); errors.Is(err, errNotNow) && time.Now().Before(until); {
		if err := s.wait(shortly(ctx)); err != nil || ctx.Err() != nil {
			return apiOperation{}, errors.Join(err, ctx.Err())
		}
		answer, err = s.request(ctx, http.MethodPost, operationsPath, body)
	}
	if err != nil {
		return apiOperation{}, err
	}
	fmt.Fprintf(s.out, "   POST %s %s\n   <- %s\n", operationsPath, body, bytes.TrimSpace(answer))
	var o apiOperation
	if err := json.Unmarshal(answer, &o); err != nil {
		return o, fmt.Errorf("the API's answer: %w", err)
	}
	for last := ""; o.Status == "PENDING"; {
		if err := s.wait(shortly(ctx)); err != nil || ctx.Err() != nil {
			return o, errors.Join(err, ctx.Err())
		}
		if answer, err = s.request(ctx, http.MethodGet, operationsPath+"/"+o.ID, ""); err != nil {
			return o, err
		}
		o = apiOperation{}
		if err := json.Unmarshal(answer, &o); err != nil {
			return o, fmt.Errorf("the API's answer: %w", err)
		}
		if o.Progress != nil && o.Progress.Message != last {
			last = o.Progress.Message
			fmt.Fprintf(s.out, "   progress: %s\n", last)
		}
	}
	did, _ := s.heard.since(heard)
	for _, line := range did {
		fmt.Fprintf(s.out, "   the terminal: %s\n", line)
	}
	return o, nil
}

// shortly is a context that ends soon.
func shortly(ctx context.Context) context.Context {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// errNotNow: the API has done nothing, and will later.
var errNotNow = errors.New("not now")

// connectTimeout is how long the dispatcher may take to connect to its broker.
const connectTimeout = 20 * time.Second

// request asks the API. The error is errNotNow where it answers 503.
func (s *stage) request(ctx context.Context, method, path, body string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.api+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusServiceUnavailable {
		return nil, fmt.Errorf("%s %s: %w: %s", method, path, errNotNow, bytes.TrimSpace(answer))
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

// checkTotals compares the result with what the terminal's own log says it
// closed.
func (s *stage) checkTotals(_ context.Context, o apiOperation) error {
	r := o.Result
	if r.PurchasesCount == nil || r.PurchasesAmount == nil {
		return errors.New("the result has no totals")
	}
	fmt.Fprintf(s.out, "   totals: %d purchases, %s\n", *r.PurchasesCount, strings.TrimSpace(money(*r.PurchasesAmount)+" "+r.Currency))
	for _, c := range r.ByCardScheme {
		if c.Count > 0 {
			fmt.Fprintf(s.out, "           %-12s %3d  %10s\n", c.Scheme, c.Count, money(c.Amount))
		}
	}
	closed, err := s.closed()
	if err != nil {
		return err
	}
	var count, amount int64
	for _, c := range closed {
		count, amount = count+c.Count, amount+c.Amount
	}
	if count != *r.PurchasesCount || amount != *r.PurchasesAmount {
		return fmt.Errorf("the terminal's log says that it closed %d purchases, %s", count, money(amount))
	}
	fmt.Fprintln(s.out, "   the same as in the terminal's own log")
	return nil
}

type scheme struct {
	Count  int64 `json:"count"`
	Amount int64 `json:"amount"`
}

// closed reads what the terminal has closed: exactly one end of day.
func (s *stage) closed() ([]scheme, error) {
	content, err := os.ReadFile(filepath.Join(s.dir, "terminal.log"))
	if err != nil {
		return nil, err
	}
	var found [][]scheme
	for d := json.NewDecoder(bytes.NewReader(content)); d.More(); {
		var line struct {
			What   string `json:"what"`
			Totals struct {
				Schemes []scheme `json:"schemes"`
			} `json:"totals"`
		}
		if err := d.Decode(&line); err != nil {
			return nil, fmt.Errorf("the terminal's log: %w", err)
		}
		if line.What == "end_of_day" {
			found = append(found, line.Totals.Schemes)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("the terminal's log has %d ends of day, want 1", len(found))
	}
	return found[0], nil
}

// checkLogs lists what is in the archive that the API has.
func (s *stage) checkLogs(ctx context.Context, o apiOperation) error {
	archive, err := s.request(ctx, http.MethodGet, operationsPath+"/"+o.ID+"/logs", "")
	if err != nil {
		return err
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return fmt.Errorf("the archive: %w", err)
	}
	files := tar.NewReader(unzipped)
	for {
		h, err := files.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the archive: %w", err)
		}
		fmt.Fprintf(s.out, "   in the archive: %-28s %6d bytes\n", h.Name, h.Size)
	}
}

func (s *stage) checkUpdate(_ context.Context, o apiOperation) error {
	fmt.Fprintf(s.out, "   update: %s, software version %s -> %s\n", o.Result.Update, o.Result.Before, o.Result.After)
	return nil
}

func (s *stage) checkMenu(_ context.Context, o apiOperation) error {
	fmt.Fprintf(s.out, "   open since %s\n", o.Result.OpenedAt)
	return nil
}

// money writes minor units as in 1234.50.
func money(minor int64) string { return fmt.Sprintf("%d.%02d", minor/100, minor%100) }

// invite tells how to go on by hand.
func (s *stage) invite() {
	fmt.Fprintf(s.out, `
Everything goes on running until you press Ctrl-C. In another window:

  export API=%s%s
  export TOKEN=%s

  curl -s $API -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
       -d '{"terminal_id":"%s","operation":"end_of_day"}'
  curl -s "$API?limit=1" -H "Authorization: Bearer $TOKEN"

Configurations, logs and state: %s
`, s.api, operationsPath, s.token, terminal, s.dir)
}
