package main

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// Verifies a pod's token for the audience `rota` as Rota's server does: with the keys published by the API server, here
// fetched by the pod itself.
func tokens(t *testing.T, c *cluster) {
	token := strings.TrimSpace(inPod(t, c, "cat /token/token"))
	const get = `wget -qO- --no-check-certificate --header "Authorization: Bearer $(cat /var/run/secrets/kubernetes.io/serviceaccount/token)" https://kubernetes.default.svc`
	var discovery struct {
		Issuer string
		Keys   string `json:"jwks_uri"`
	}
	decode(t, []byte(inPod(t, c, get+"/.well-known/openid-configuration")), &discovery)
	var keys struct{ Keys []struct{ Kid, N, E string } }
	decode(t, []byte(inPod(t, c, get+"/openid/v1/jwks")), &keys)
	if len(keys.Keys) != 1 {
		t.Fatalf("%d keys", len(keys.Keys))
	}

	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	var header struct{ Alg, Kid string }
	decode(t, unbase(t, parts[0]), &header)
	var claims struct {
		Issuer   string   `json:"iss"`
		Audience []string `json:"aud"`
		Subject  string   `json:"sub"`
	}
	decode(t, unbase(t, parts[1]), &claims)
	if header.Alg != "RS256" || header.Kid != keys.Keys[0].Kid {
		t.Errorf("token header %+v does not match the keys %+v", header, keys)
	}
	if claims.Issuer != discovery.Issuer || !slices.Equal(claims.Audience, []string{"rota"}) || claims.Subject != "system:serviceaccount:web:web" {
		t.Errorf("token claims %+v do not match discovery %+v", claims, discovery)
	}
	key := &rsa.PublicKey{
		N: new(big.Int).SetBytes(unbase(t, keys.Keys[0].N)),
		E: int(new(big.Int).SetBytes(unbase(t, keys.Keys[0].E)).Int64()),
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], unbase(t, parts[2])); err != nil {
		t.Error(err)
	}
}

func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

func unbase(t *testing.T, text string) []byte {
	t.Helper()
	content, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
