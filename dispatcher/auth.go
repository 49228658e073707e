package dispatcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// leeway is by how much the clocks of the token's issuer and ours may differ.
	leeway = 60 * time.Second
	// shortestSecret is the length in bytes below which an HMAC secret could be guessed.
	shortestSecret = 32
)

// The scopes of the API. They match whole, never by prefix.
const (
	scopeAdmin = "admin:checkout"
	scopeWrite = "write:checkout:/admin/terminals"
	scopeRead  = "read:checkout:/admin/terminals"
)

var accountID = regexp.MustCompile(`^[PT][0-9]{8}$`)

// ValidAccountID reports whether id is a production (P...) or sandbox (T...) account.
func ValidAccountID(id string) bool { return accountID.MatchString(id) }

// TokenOptions say which bearer tokens are good.
type TokenOptions struct {
	// Either Secret, for HS256, HS384 and HS512, or JWKSFile, a file of public
	// keys that is read again when it changes.
	Secret   []byte
	JWKSFile string
	Issuers  []string // iss is one of these
	// Audience is what aud has to be, or to begin with: AUDIENCE/accounts/ID
	// names the account too.
	Audience string
	// Log is told when that file has changed; nil: nobody is.
	Log *slog.Logger
}

func (o TokenOptions) validate() error {
	switch {
	case (len(o.Secret) > 0) == (o.JWKSFile != ""):
		return errors.New("want either an HMAC secret or a JWKS file")
	case o.JWKSFile == "" && len(o.Secret) < shortestSecret:
		return fmt.Errorf("HMAC secret has %d bytes, want at least %d", len(o.Secret), shortestSecret)
	case len(o.Issuers) == 0 || slices.Contains(o.Issuers, ""):
		return errors.New("want the issuers of tokens")
	case o.Audience == "":
		return errors.New("want the audience of tokens")
	}
	return nil
}

// Verifier tells good tokens from bad ones.
type Verifier struct {
	options TokenOptions
	parser  *jwt.Parser
	keys    *keySet // nil with a secret
}

// NewVerifier reads the keys, if they are in a file.
func NewVerifier(o TokenOptions) (*Verifier, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	v := &Verifier{options: o}
	methods := []string{"HS256", "HS384", "HS512"}
	if o.JWKSFile != "" {
		v.keys = &keySet{file: o.JWKSFile, log: o.Log}
		if o.Log == nil {
			v.keys.log = slog.New(slog.DiscardHandler)
		}
		if err := v.keys.load(); err != nil {
			return nil, err
		}
		methods = publicMethods
	}
	v.parser = jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithLeeway(leeway), jwt.WithExpirationRequired())
	return v, nil
}

type claims struct {
	jwt.RegisteredClaims
	Scope     scopes `json:"scope"`
	Email     string `json:"email,omitempty"`
	AccountID string `json:"account_id,omitempty"`
}

// scopes are a space-separated string, or an array.
type scopes []string

func (s *scopes) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*s = strings.Fields(text)
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// MarshalJSON writes the string form.
func (s scopes) MarshalJSON() ([]byte, error) { return json.Marshal(strings.Join(s, " ")) }

// caller is whom a token speaks for.
type caller struct {
	name     string // e-mail address, else subject
	accounts []string
	scopes   []string
}

func (v *Verifier) verify(token string) (caller, error) {
	var c claims
	if _, err := v.parser.ParseWithClaims(token, &c, v.key); err != nil {
		return caller{}, err
	}
	if !slices.Contains(v.options.Issuers, c.Issuer) {
		return caller{}, fmt.Errorf("issuer is %.80q, which is not trusted here", c.Issuer)
	}
	who := caller{scopes: c.Scope}
	for _, name := range []string{c.Email, c.Subject, c.Issuer} {
		if who.name == "" {
			who.name = name
		}
	}
	forUs := false
	for _, audience := range c.Audience {
		account, ok := v.audience(audience)
		forUs = forUs || ok
		who.addAccount(account)
	}
	if !forUs {
		return caller{}, fmt.Errorf("audience is %.200q, want %q", []string(c.Audience), v.options.Audience)
	}
	who.addAccount(c.AccountID)
	return who, nil
}

// audience reports whether a is ours, and the account it names, if any.
func (v *Verifier) audience(a string) (account string, ok bool) {
	if a == v.options.Audience {
		return "", true
	}
	account, ok = strings.CutPrefix(a, v.options.Audience+"/accounts/")
	if !ok || !ValidAccountID(account) {
		return "", false
	}
	return account, true
}

func (c *caller) addAccount(id string) {
	if ValidAccountID(id) && !slices.Contains(c.accounts, id) {
		c.accounts = append(c.accounts, id)
	}
}

// key finds what a token has to be verified with.
func (v *Verifier) key(t *jwt.Token) (any, error) {
	if _, critical := t.Header["crit"]; critical {
		return nil, errors.New("the header has critical extensions, none is known here")
	}
	if v.keys == nil {
		return v.options.Secret, nil
	}
	id, _ := t.Header["kid"].(string)
	return v.keys.find(id, t.Method.Alg())
}

// account is the one that a request is about: the path's, else the token's.
func (c caller) account(path string) (string, *problem) {
	switch {
	case path != "" && slices.Contains(c.accounts, path):
		return path, nil
	case path != "":
		return "", forbidden("the token is not for account %.20q", path)
	case len(c.accounts) == 1:
		return c.accounts[0], nil
	case len(c.accounts) == 0:
		return "", forbidden("the token names no account: want aud .../accounts/{account}, or a claim account_id")
	default:
		return "", forbidden("the token names several accounts: use the path with the account in it")
	}
}

func forbidden(format string, args ...any) *problem {
	return newProblem(http.StatusForbidden, "forbidden", format, args...)
}

// authorize finds out who asks, and whether that may be: the first two checks
// of every request.
func (v *Verifier) authorize(r *http.Request, wants string) (caller, string, *problem) {
	who, p := v.authenticate(r)
	if p != nil {
		return caller{}, "", p
	}
	if !slices.Contains(who.scopes, scopeAdmin) && !slices.Contains(who.scopes, wants) {
		return caller{}, "", newProblem(http.StatusForbidden, "insufficient_scope", "the token needs the scope %s or %s", scopeAdmin, wants).
			with("WWW-Authenticate", fmt.Sprintf(`Bearer error="insufficient_scope", scope="%s %s"`, scopeAdmin, wants))
	}
	account, p := who.account(r.PathValue("account"))
	return who, account, p
}

func (v *Verifier) authenticate(r *http.Request) (caller, *problem) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{}, newProblem(http.StatusUnauthorized, "unauthorized", "want a bearer token").
			with("WWW-Authenticate", "Bearer")
	}
	who, err := v.verify(strings.TrimSpace(token))
	if err != nil {
		return caller{}, newProblem(http.StatusUnauthorized, "invalid_token", "%v", err).
			with("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	return who, nil
}

// Development is a token for trying things out.
type Development struct {
	Account string
	Scopes  []string
	Subject string
	Email   string // may be empty
	For     time.Duration
}

// ErrNoSecret is returned by Sign where tokens are verified with public keys:
// whoever has the private key has to make them.
var ErrNoSecret = errors.New("tokens are verified with the public keys of a JWKS file, there is no secret here to sign with")

// Sign makes a token that a Verifier of the same options takes.
func (o TokenOptions) Sign(d Development) (string, error) {
	if o.JWKSFile != "" {
		return "", ErrNoSecret
	}
	if err := o.validate(); err != nil {
		return "", err
	}
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: o.Issuers[0], Subject: d.Subject, Audience: jwt.ClaimStrings{o.Audience + "/accounts/" + d.Account},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(d.For)),
		},
		Scope: d.Scopes, Email: d.Email,
	}).SignedString(o.Secret)
}
