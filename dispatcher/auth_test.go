package dispatcher_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"terminalops/dispatcher"
	"terminalops/dispatcher/store"
)

// goodClaims are those of a token that may do everything for an hour, by the
// clock of where it is called: in a bubble it is the year 2000.
func goodClaims() jwt.MapClaims {
	return jwt.MapClaims{
		"iss": "https://login.example.com", "aud": "https://api.example.com/v1/accounts/P11223351", "exp": time.Now().Add(time.Hour).Unix(),
		"sub": "demo", "scope": "openid admin:checkout",
	}
}

func signed(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims, header ...string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokens(t *testing.T) {
	in := func(name string, d time.Duration) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) { c[name] = time.Now().Add(d).Unix() }
	}
	change := func(name string, value any) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	const read, write = "read:checkout:/admin/terminals", "write:checkout:/admin/terminals"
	tests := []struct {
		name      string
		change    func(jwt.MapClaims)
		get, post int
	}{
		{"good", change("x", 1), 200, 201},
		{"read", change("scope", read), 200, 403},
		{"write", change("scope", write), 403, 201},
		{"array of scopes", change("scope", []string{"x", read, write}), 200, 201},
		{"prefix of a scope", change("scope", "read:checkout write:checkout"), 403, 403},
		{"longer than a scope", change("scope", read+"/more admin:checkout:x"), 403, 403},
		{"scopes in one array element", change("scope", []string{"x admin:checkout"}), 403, 403},
		{"no scope", change("scope", nil), 403, 403},
		{"scope is a number", change("scope", 7), 401, 401},
		{"second issuer", change("iss", "https://old.example.com"), 200, 201},
		{"another issuer", change("iss", "https://evil.example.com"), 401, 401},
		{"no issuer", change("iss", nil), 401, 401},
		{"several audiences", change("aud", []string{"https://other.example.com", "https://api.example.com/v1/accounts/P11223351"}), 200, 201},
		{"another audience", change("aud", "https://other.example.com/v1/accounts/P11223351"), 401, 401},
		{"audience begins like ours", change("aud", "https://api.example.com/v1x/accounts/P11223351"), 401, 401},
		{"no audience", change("aud", nil), 401, 401},
		{"account is malformed", change("aud", "https://api.example.com/v1/accounts/P1122335"), 401, 401},
		{"another account", change("aud", "https://api.example.com/v1/accounts/P99999999"), 200, 404},
		{"no account", change("aud", "https://api.example.com/v1"), 403, 403},
		{"account_id", func(c jwt.MapClaims) { c["aud"], c["account_id"] = "https://api.example.com/v1", account }, 200, 201},
		{"two accounts", change("account_id", "P99999999"), 403, 403},
		{"no expiry", change("exp", nil), 401, 401},
		{"expired", in("exp", -90*time.Second), 401, 401},
		{"expired within the leeway", in("exp", -30*time.Second), 200, 201},
		{"not yet good", in("nbf", 90*time.Second), 401, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			with(t, nil, func(b *bed) {
				claims := goodClaims()
				tt.change(claims)
				b.token = signed(t, jwt.SigningMethodHS256, tokens.Secret, claims)
				if a := b.do("GET", base, ""); a.status != tt.get {
					t.Errorf("GET: have %v, want %d", a, tt.get)
				}
				if a := b.post(endOfDay); a.status != tt.post {
					t.Errorf("POST: have %v, want %d", a, tt.post)
				}
			})
		})
	}
}

func TestUnauthorized(t *testing.T) {
	with(t, nil, func(b *bed) {
		good := signed(t, jwt.SigningMethodHS256, tokens.Secret, goodClaims())
		parts := strings.Split(good, ".")
		reader := b.sign(dispatcher.Development{Account: account, Scopes: []string{"read:checkout:/admin/terminals"}, Subject: "s"})
		none := signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, goodClaims())
		const invalid = `Bearer error="invalid_token"`
		tests := []struct {
			name, authorization string
			status              int
			challenge           string
		}{
			{"nothing", "", 401, "Bearer"},
			{"basic", "Basic YTpi", 401, "Bearer"},
			{"token without scheme", good, 401, "Bearer"},
			{"no token", "Bearer", 401, invalid},
			{"no JWT", "Bearer x", 401, invalid},
			{"alg none", "Bearer " + none, 401, invalid},
			{"alg none with a signature", "Bearer " + none + parts[2], 401, invalid},
			{"signature cut off", "Bearer " + parts[0] + "." + parts[1] + ".", 401, invalid},
			{"another secret", "Bearer " + signed(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), goodClaims()), 401, invalid},
			{"critical extension", "Bearer " + signed(t, jwt.SigningMethodHS256, tokens.Secret, goodClaims(), "crit", "x"), 401, invalid},
			{"scope", "Bearer " + reader, 403, `Bearer error="insufficient_scope", scope="admin:checkout write:checkout:/admin/terminals"`},
			{"scheme in small letters", "bearer " + good, 201, ""},
		}
		for _, tt := range tests {
			a := b.post(endOfDay, "Authorization", tt.authorization)
			if a.status != tt.status || a.header.Get("WWW-Authenticate") != tt.challenge {
				t.Errorf("%s: have %v, %q", tt.name, a, a.header.Get("WWW-Authenticate"))
			}
			if tt.status != 201 {
				checkProblem(t, tt.name, a, tt.status)
			}
		}
	})
}

func TestCreatedBy(t *testing.T) {
	with(t, nil, func(b *bed) {
		for _, tt := range []struct{ email, sub, want string }{
			{"anna@example.com", "demo", "anna@example.com"},
			{"", "demo", "demo"},
			{"", "", "https://login.example.com"},
		} {
			claims := goodClaims()
			claims["email"], claims["sub"] = tt.email, tt.sub
			b.token = signed(t, jwt.SigningMethodHS256, tokens.Secret, claims)
			o := b.create(endOfDay)
			if o.CreatedBy != tt.want || o.UpdatedBy != tt.want {
				t.Errorf("have %q and %q, want %q", o.CreatedBy, o.UpdatedBy, tt.want)
			}
			b.report(o.ID, `"state":"COMPLETED"`)
		}
	})
}

// keyPairs are keys of every kind, and how they stand in a JWKS file.
type keyPair struct {
	method  jwt.SigningMethod
	private any
	jwk     map[string]string
}

func keyPairs(t *testing.T) map[string]keyPair {
	t.Helper()
	encode := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[string]keyPair{
		"rsa": {jwt.SigningMethodRS256, rsaKey, map[string]string{"kty": "RSA", "use": "sig",
			"n": encode(rsaKey.N.Bytes()), "e": encode(big.NewInt(int64(rsaKey.E)).Bytes())}},
		"ed": {jwt.SigningMethodEdDSA, edKey, map[string]string{"kty": "OKP", "crv": "Ed25519", "x": encode(edPublic)}},
	}
	for name, ec := range map[string]struct {
		curve  elliptic.Curve
		method jwt.SigningMethod
	}{"P-256": {elliptic.P256(), jwt.SigningMethodES256}, "P-384": {elliptic.P384(), jwt.SigningMethodES384}, "P-521": {elliptic.P521(), jwt.SigningMethodES512}} {
		key, err := ecdsa.GenerateKey(ec.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		pairs[name] = keyPair{ec.method, key, map[string]string{"kty": "EC", "crv": name, "x": encode(point[1 : 1+half]), "y": encode(point[1+half:])}}
	}
	for name, p := range pairs {
		p.jwk["kid"] = name
	}
	return pairs
}

func writeJWKS(t *testing.T, file string, keys ...map[string]string) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// asker returns what status a token gets.
func asker(t *testing.T, v *dispatcher.Verifier) func(token string) int {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "d.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d, err := dispatcher.New(dispatcher.Options{
		Store: db, Verifier: v, PublicURL: "https://dispatcher.example.com", Times: dispatcher.DefaultTimes(),
		Uploads: dispatcher.Uploads{Dir: t.TempDir(), Key: tokens.Secret, MaxBytes: 1, Keep: time.Hour}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(token string) int {
		r := httptest.NewRequest("GET", base, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		d.Handler().ServeHTTP(w, r)
		return w.Code
	}
}

func TestJWKS(t *testing.T) {
	pairs := keyPairs(t)
	file := filepath.Join(t.TempDir(), "keys.jwks")
	log := new(bytes.Buffer)
	options := dispatcher.TokenOptions{JWKSFile: file, Issuers: tokens.Issuers, Audience: tokens.Audience, Log: slog.New(slog.NewTextHandler(log, nil))}
	var keys []map[string]string
	for _, p := range pairs {
		keys = append(keys, p.jwk)
	}
	writeJWKS(t, file, append(keys, map[string]string{"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB", "kid": "encryption"})...)
	v, err := dispatcher.NewVerifier(options)
	if err != nil {
		t.Fatal(err)
	}
	ask, claims := asker(t, v), goodClaims()
	for name, p := range pairs {
		if got := ask(signed(t, p.method, p.private, claims, "kid", name)); got != http.StatusOK {
			t.Errorf("%s: have %d", name, got)
		}
		if got := ask(signed(t, p.method, p.private, claims)); got != http.StatusOK {
			t.Errorf("%s without kid: have %d", name, got)
		}
		if got := ask(signed(t, p.method, p.private, claims, "kid", "another")); got != http.StatusUnauthorized {
			t.Errorf("%s with another kid: have %d", name, got)
		}
	}
	// The classic: a public key used as an HMAC secret.
	n, err := base64.RawURLEncoding.DecodeString(pairs["rsa"].jwk["n"])
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(signed(t, jwt.SigningMethodHS256, n, claims, "kid", "rsa")); got != http.StatusUnauthorized {
		t.Errorf("HMAC with the public key: have %d", got)
	}
	// The file is read again: a key that is gone is good no more, a broken file
	// changes nothing. The log says either, once.
	token := signed(t, pairs["ed"].method, pairs["ed"].private, claims, "kid", "ed")
	if log.Len() > 0 {
		t.Errorf("as long as nothing changes: log %s", log)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := ask(token); got != http.StatusOK {
			t.Errorf("after the file broke: have %d", got)
		}
	}
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "the keys stay as they were") || !strings.Contains(said, "unexpected end of JSON input") {
		t.Errorf("after the file broke: log %s", said)
	}
	log.Reset()
	writeJWKS(t, file, pairs["rsa"].jwk)
	for range 2 {
		if got := ask(token); got != http.StatusUnauthorized {
			t.Errorf("after the key was removed: have %d", got)
		}
	}
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "its keys are used now") || !strings.Contains(said, "keys=1") {
		t.Errorf("after the key was removed: log %s", said)
	}
	if _, err := options.Sign(dispatcher.Development{Account: account}); err != dispatcher.ErrNoSecret {
		t.Errorf("Sign: %v", err)
	}
}

// A key of a kind that nobody here knows does not keep the others out (RFC 7517, 5),
// nor those in that are gone.
func TestJWKSWithAKeyOfAnUnknownKind(t *testing.T) {
	pairs := keyPairs(t)
	file := filepath.Join(t.TempDir(), "keys.jwks")
	writeJWKS(t, file, pairs["rsa"].jwk)
	v, err := dispatcher.NewVerifier(dispatcher.TokenOptions{JWKSFile: file, Issuers: tokens.Issuers, Audience: tokens.Audience})
	if err != nil {
		t.Fatal(err)
	}
	ask, claims := asker(t, v), goodClaims()
	writeJWKS(t, file, pairs["P-256"].jwk, map[string]string{"kty": "OKP", "crv": "Ed448", "x": "AQAB", "kid": "new", "use": "sig"})
	if got := ask(signed(t, pairs["P-256"].method, pairs["P-256"].private, claims, "kid", "P-256")); got != http.StatusOK {
		t.Errorf("the new key: have %d", got)
	}
	if got := ask(signed(t, pairs["rsa"].method, pairs["rsa"].private, claims, "kid", "rsa")); got != http.StatusUnauthorized {
		t.Errorf("the key that was removed: have %d", got)
	}
}

func TestJWKSRefuses(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	for name, tt := range map[string]struct {
		jwk  map[string]string
		says string
	}{
		"secret":         {map[string]string{"kty": "oct", "k": "c2VjcmV0"}, "want a public key"},
		"short RSA":      {map[string]string{"kty": "RSA", "n": encode(short.N.Bytes()[:128]), "e": "AQAB"}, "want at least 2048"},
		"RSA exponent 1": {map[string]string{"kty": "RSA", "n": encode(short.N.Bytes()), "e": "AQ"}, "exponent"},
		"RSA for ES256":  {map[string]string{"kty": "RSA", "n": encode(short.N.Bytes()), "e": "AQAB", "alg": "ES256"}, "alg is"},
		"unknown curve":  {map[string]string{"kty": "EC", "crv": "secp256k1"}, "want P-256"},
		"not on curve":   {map[string]string{"kty": "EC", "crv": "P-256", "x": encode(make([]byte, 32)), "y": encode(make([]byte, 32))}, "key 0"},
		"short Ed25519":  {map[string]string{"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}, "want Ed25519"},
		"for encryption": {map[string]string{"kty": "RSA", "use": "enc"}, "no keys for signatures"},
		"not base64":     {map[string]string{"kty": "RSA", "n": "!!"}, "illegal base64"},
	} {
		file := filepath.Join(t.TempDir(), "keys.jwks")
		writeJWKS(t, file, tt.jwk)
		_, err := dispatcher.NewVerifier(dispatcher.TokenOptions{JWKSFile: file, Issuers: tokens.Issuers, Audience: tokens.Audience})
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: have %v, want it to say %q", name, err, tt.says)
		}
	}
}

func TestTokenOptionsRefused(t *testing.T) {
	for name, change := range map[string]func(*dispatcher.TokenOptions){
		"short secret": func(o *dispatcher.TokenOptions) { o.Secret = o.Secret[:31] },
		"no secret":    func(o *dispatcher.TokenOptions) { o.Secret = nil },
		"both":         func(o *dispatcher.TokenOptions) { o.JWKSFile = "x" },
		"no issuer":    func(o *dispatcher.TokenOptions) { o.Issuers = nil },
		"empty issuer": func(o *dispatcher.TokenOptions) { o.Issuers = []string{""} },
		"no audience":  func(o *dispatcher.TokenOptions) { o.Audience = "" },
	} {
		o := tokens
		change(&o)
		if _, err := dispatcher.NewVerifier(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
