//go:build !windows

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"terminalops/device"
	"terminalops/transport"
)

// aSendLogs is what there is to see of one behind an end of day, as far as it went
// when the logs were packed. The simulated terminal prints a card number, and has it
// in its logs.
var aSendLogs = []string{
	"PT → ECR    06 D3 print text-block: ",
	`"Letzte Karte 4111 11** **** 1111"`,
	"journal     end_of_day cloud-0 finished: COMPLETED\n",
	"command send_logs cloud-1, starts until ",
	"journal     send_logs cloud-1 accepted\n",
	"ECR → PT    06 00 registration: password ••••••",
	"journal     send_logs cloud-1 started\n",
	"ECR → PT    08 11 read file: ",
	"PT → ECR    04 0F status information: ",
	"log         INFO packing the logs operation=cloud-1",
}

// checkCapture has decode explain a capture, in which everything has to be that is
// wanted, and nothing that must not be seen.
func checkCapture(t *testing.T, name, content string, want ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	code, decoded := output("decode", file)
	if code != exitOK {
		t.Errorf("decode: exit code %d", code)
	}
	wantInOrder(t, decoded, want...)
	for _, text := range []string{content, decoded} {
		for _, secret := range []string{"4111 1111", "41111111", "34 31 31 31 20 31 31 31", "03 00 00 00"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %q", name, secret)
			}
		}
	}
}

// The archive of a send_logs has what went over the line for it; and a bundle that
// is made beside the service has that, too.
func TestCapturesOfTheService(t *testing.T) {
	t.Parallel()
	_, cloud, config := onePC(t)
	stateDir := filepath.Join(filepath.Dir(config), "state")
	process(t, "run", "--config", config)
	cloud.await("a hello", func() bool { return len(cloud.hellos) > 0 })
	cloud.send(transport.Commands, endOfDay("cloud-0"))
	cloud.awaitFinal("cloud-0")
	var c transport.Command
	if err := json.Unmarshal(endOfDay("cloud-1"), &c); err != nil {
		t.Fatal(err)
	}
	c.Operation = string(device.SendLogs)
	cloud.send(transport.Commands, transport.Encode(c))
	state := cloud.awaitFinal("cloud-1")
	archives, err := filepath.Glob(filepath.Join(stateDir, "logs", "*.tar.gz"))
	if err != nil || len(archives) != 1 || state != transport.StateCompleted {
		t.Fatalf("%s, archives %q, %v", state, archives, err)
	}
	files := unpack(t, archives[0])
	if !strings.Contains(files["terminal-agent.log"], "operation=cloud-1") {
		t.Errorf("the agent's log: %s", files["terminal-agent.log"])
	}
	checkCapture(t, "terminal-agent-capture.txt", files["terminal-agent-capture.txt"], append([]string{"software terminal-agent ", "device ", "terminal T1\n"}, aSendLogs...)...)

	bundle := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if code, out := output("doctor", "--config", config, "--bundle", bundle); code != exitOK {
		t.Errorf("doctor: exit code %d: %s", code, out)
	}
	files = unpack(t, bundle)
	if _, there := files["captures.txt"]; there {
		t.Error("the doctor has asked the terminal beside the service")
	}
	checkCapture(t, "captures-service.txt", files["captures-service.txt"], append(aSendLogs, "journal     send_logs cloud-1 finished: COMPLETED\n", "to cloud    report COMPLETED send_logs cloud-1 ")...)
}
