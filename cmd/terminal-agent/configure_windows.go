package main

import "os"

// shareSecret lets the service, and otherwise the administrators only, read a file
// with a secret, wherever it is. Who is no administrator keeps what the directory
// says: nobody else could give the file back.
func shareSecret(f *os.File) error {
	if !elevated() {
		return nil
	}
	return protect(f.Name(), "FR")
}
