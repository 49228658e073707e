package dispatcher

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// shortestRSA is the length in bits below which RSA keys are refused.
const shortestRSA = 2048

var rsaMethods = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}

// publicMethods are the algorithms whose keys may stand in a JWKS file.
var publicMethods = append(slices.Clone(rsaMethods), "ES256", "ES384", "ES512", "EdDSA")

// keySet holds the public keys of a JWKS file ([RFC 7517], [RFC 8037]).
type keySet struct {
	file string
	log  *slog.Logger

	mu      sync.Mutex
	changed time.Time // of the file, when keys was read
	size    int64
	keys    []publicKey
	wrong   string // what was last said of the file; empty: nothing is wrong with it
}

// publicKey is one key and the algorithms it may be used with: never those of
// another kind of key.
type publicKey struct {
	id      string
	methods []string
	key     jwt.VerificationKey
}

// find returns the keys that a token with this key id (empty: not said) and
// algorithm may be signed with.
func (s *keySet) find(id, method string) (jwt.VerificationKeySet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	var found jwt.VerificationKeySet
	for _, k := range s.keys {
		if (id == "" || k.id == id) && slices.Contains(k.methods, method) {
			found.Keys = append(found.Keys, k.key)
		}
	}
	if len(found.Keys) == 0 {
		return found, fmt.Errorf("no key with id %.80q for %s", id, method)
	}
	return found, nil
}

// refresh reads the file again if it has changed. A file that cannot be read,
// or is just being written, leaves the keys as they are until it can; the log
// says so, once.
func (s *keySet) refresh() {
	info, err := os.Stat(s.file)
	if err == nil && info.ModTime().Equal(s.changed) && info.Size() == s.size {
		return
	}
	var keys []publicKey
	if err == nil {
		keys, err = readKeys(s.file)
	}
	if err != nil {
		if wrong := err.Error(); wrong != s.wrong {
			s.wrong = wrong
			s.log.Warn("JWKS file cannot be read, the keys stay as they were", "file", s.file, "error", wrong)
		}
		return
	}
	s.keys, s.changed, s.size, s.wrong = keys, info.ModTime(), info.Size(), ""
	s.log.Info("JWKS file has changed, its keys are used now", "file", s.file, "keys", len(keys))
}

// load reads the file for the first time.
func (s *keySet) load() error {
	info, err := os.Stat(s.file)
	if err != nil {
		return fmt.Errorf("JWKS file: %w", err)
	}
	keys, err := readKeys(s.file)
	if err != nil {
		return fmt.Errorf("JWKS file %s: %w", s.file, err)
	}
	s.keys, s.changed, s.size = keys, info.ModTime(), info.Size()
	return nil
}

// errUnknownKind is a key of a kind that is not understood here.
var errUnknownKind = errors.New("unknown kind of key")

type jwk struct {
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	Curve     string `json:"crv"`
	N, E      base64URL
	X, Y      base64URL
}

type base64URL []byte

func (b *base64URL) UnmarshalText(text []byte) (err error) {
	*b, err = base64.RawURLEncoding.DecodeString(string(text))
	return err
}

func readKeys(file string) ([]publicKey, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, err
	}
	var keys []publicKey
	var unknown error
	for i, k := range set.Keys {
		if k.Use != "" && k.Use != "sig" {
			continue // for encryption
		}
		public, err := k.public()
		if errors.Is(err, errUnknownKind) {
			unknown = fmt.Errorf(": key %d (kid %.80q): %w", i, k.ID, err)
			continue // no reason to miss the others: RFC 7517, 5
		}
		if err != nil {
			return nil, fmt.Errorf("key %d (kid %.80q): %w", i, k.ID, err)
		}
		keys = append(keys, public)
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case unknown != nil:
		return nil, fmt.Errorf("no keys for signatures in it%w", unknown)
	default:
		return nil, errors.New("no keys for signatures in it")
	}
}

func (k jwk) public() (publicKey, error) {
	key, methods, err := k.parse()
	if err != nil {
		return publicKey{}, err
	}
	if k.Algorithm != "" {
		if !slices.Contains(methods, k.Algorithm) {
			return publicKey{}, fmt.Errorf("alg is %.20q, for this key it can be %q", k.Algorithm, methods)
		}
		methods = []string{k.Algorithm}
	}
	return publicKey{k.ID, methods, key}, nil
}

func (k jwk) parse() (key jwt.VerificationKey, methods []string, err error) {
	switch k.Type {
	case "RSA":
		key, err = k.rsa()
		return key, rsaMethods, err
	case "EC":
		return k.ecdsa()
	case "OKP":
		if k.Curve != "Ed25519" {
			return nil, nil, fmt.Errorf("%w: crv is %.20q, want Ed25519", errUnknownKind, k.Curve)
		}
		if len(k.X) != ed25519.PublicKeySize {
			return nil, nil, fmt.Errorf("crv is %.20q with %d bytes, want Ed25519 with %d", k.Curve, len(k.X), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(k.X), []string{"EdDSA"}, nil
	default:
		return nil, nil, fmt.Errorf("%w: kty is %.20q, want a public key: RSA, EC or OKP", errUnknownKind, k.Type)
	}
}

func (k jwk) rsa() (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(k.N), new(big.Int).SetBytes(k.E)
	switch {
	case n.BitLen() < shortestRSA:
		return nil, fmt.Errorf("RSA key has %d bits, want at least %d", n.BitLen(), shortestRSA)
	case e.BitLen() > 31 || e.Int64() < 3:
		return nil, errors.New("RSA exponent is out of range")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

func (k jwk) ecdsa() (*ecdsa.PublicKey, []string, error) {
	curves := map[string]struct {
		curve  elliptic.Curve
		method string
	}{"P-256": {elliptic.P256(), "ES256"}, "P-384": {elliptic.P384(), "ES384"}, "P-521": {elliptic.P521(), "ES512"}}
	c, ok := curves[k.Curve]
	if !ok {
		return nil, nil, fmt.Errorf("%w: crv is %.20q, want P-256, P-384 or P-521", errUnknownKind, k.Curve)
	}
	size := (c.curve.Params().BitSize + 7) / 8
	if len(k.X) != size || len(k.Y) != size {
		return nil, nil, fmt.Errorf("x and y have %d and %d bytes, want %d", len(k.X), len(k.Y), size)
	}
	point := append(append([]byte{4}, k.X...), k.Y...) // uncompressed, SEC 1, 2.3.3
	key, err := ecdsa.ParseUncompressedPublicKey(c.curve, point)
	return key, []string{c.method}, err
}
