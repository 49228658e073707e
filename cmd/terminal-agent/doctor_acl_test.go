package main

import (
	"path/filepath"
	"testing"

	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest/brokers"
)

// A broker with an access list may grant everything, and withhold in silence what
// is not permitted. What is missing then is the answer of the cloud.
func TestDoctorDeniedInSilence(t *testing.T) {
	t.Parallel()
	const list = `user cloud
topic readwrite #
user store
topic readwrite terminals/T1/#
user deaf
topic write terminals/T1/#
user dumb
topic read terminals/T1/#
`
	denied := diagnosis{"cloud", "nobody behind it answers a hello on terminals/T1/hello", "whether these credentials may write to that topic and read terminals/T1/welcome"}
	for _, tt := range []struct {
		user    string
		code    int
		verdict verdict
		want    diagnosis
	}{
		{"store", exitOK, verdictOK, diagnosis{"cloud", "answers in ", ""}},
		{"deaf", exitFailed, verdictFailed, denied},
		{"dumb", exitFailed, verdictFailed, denied},
	} {
		t.Run(tt.user, func(t *testing.T) {
			t.Parallel()
			l := newLab(t).withTerminal("success")
			l.broker = "tcp://" + brokers.StartMosquitto(t, "acl_file "+filepath.ToSlash(l.write("acl", list))).Address
			l.withCloudAs(mqtt.Options{URLs: []string{l.broker}, Prefix: "terminals", Username: "cloud", Password: "right"}, 0)
			l.keys("username", tt.user, "password_file", l.write("password", "right"))
			l.wants(tt.code, tt.verdict, tt.want)
		})
	}
}
