package main

import (
	"context"
	"encoding"
	"log/slog"
	"strconv"
	"strings"
)

// logged is an error that stands in the log of the service manager already.
type logged struct{ error }

func (l logged) Unwrap() error { return l.error }

// lineHandler is a slog.Handler for logs that take a line of text, a level and
// some fields: the systemd journal, the event log of Windows.
type lineHandler struct {
	level slog.Leveler
	attrs []slog.Attr
	write func(level slog.Level, line string, attrs []slog.Attr) error
}

// Enabled implements slog.Handler.
func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

// Handle implements slog.Handler. The line has everything, for those who see
// nothing else.
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	var line strings.Builder
	line.WriteString(r.Message)
	for _, a := range attrs {
		value := fieldText(a.Value)
		if strings.ContainsAny(value, " \t\"=") {
			value = strconv.Quote(value)
		}
		line.WriteString(" " + a.Key + "=" + value)
	}
	return h.write(r.Level, line.String(), attrs)
}

// fieldText is a value as text; times are RFC 3339.
func fieldText(v slog.Value) string {
	v = v.Resolve()
	if m, ok := v.Any().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	return v.String()
}

// WithAttrs implements slog.Handler.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return &with
}

// WithGroup implements slog.Handler. The agent has no groups; the names of
// their fields would stand alone.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }
