// Command echo is the floor that the agent is measured against: the least that
// a program can do which receives commands over MQTT and answers them. It
// connects the same MQTT client with the same TLS, and publishes what it
// receives on ID/commands again on ID/reports.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"os"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// echo URL ID [CA CERT KEY]
func main() {
	url, id := os.Args[1], os.Args[2]
	options := mqtt.NewClientOptions().AddBroker(url).SetClientID(id).SetProtocolVersion(4).SetCleanSession(false)
	if len(os.Args) > 3 {
		options.SetTLSConfig(tlsConfig(os.Args[3], os.Args[4], os.Args[5]))
	}
	options.SetDefaultPublishHandler(func(c mqtt.Client, m mqtt.Message) {
		c.Publish("terminals/"+id+"/reports", 1, false, m.Payload())
	})
	client := mqtt.NewClient(options)
	must(client.Connect())
	must(client.Subscribe("terminals/"+id+"/commands", 1, nil))
	select {}
}

func must(t mqtt.Token) {
	if t.Wait(); t.Error() != nil {
		log.Fatal(t.Error())
	}
}

func tlsConfig(ca, cert, key string) *tls.Config {
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
}
