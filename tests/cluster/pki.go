package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const validFor = 365 * 24 * time.Hour

// Clients of the API server with certificates: name of the kubeconfig, user and group.
var clients = []struct{ name, user, group string }{
	{"admin", "admin", "system:masters"},
	{"kube-controller-manager", "system:kube-controller-manager", ""},
	{"kube-scheduler", "system:kube-scheduler", ""},
	{"kube-proxy", "system:kube-proxy", ""},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
}

// authority is the certificate authority of the cluster.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// writeTrust writes the cluster's keys, certificates and kubeconfigs to a folder.
func writeTrust(dir string, network network) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	files := map[string][]byte{"ca.crt": ca.pem}

	// For the API server and the kubelet, which share an address.
	files["server.crt"], files["server.key"], err = ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: nodeName},
		DNSNames:    []string{nodeName, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.ParseIP(network.nodeIP), net.ParseIP("127.0.0.1"), net.ParseIP(network.serviceIP)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	for _, client := range clients {
		subject := pkix.Name{CommonName: client.user}
		if client.group != "" {
			subject.Organization = []string{client.group}
		}
		cert, key, err := ca.issue(&x509.Certificate{
			Subject:     subject,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			return err
		}
		if client.name == "admin" {
			// Client certificate of the API server for the kubelet.
			files["admin.crt"], files["admin.key"] = cert, key
		}
		if files[client.name+".kubeconfig"], err = kubeconfig(network.apiServer(), ca.pem, cert, key); err != nil {
			return err
		}
	}
	// Nearly every cluster signs service account tokens with RS256.
	tokens, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	if files["tokens.key"], err = privatePEM(tokens); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(tokens.Public())
	if err != nil {
		return err
	}
	files["tokens.pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})

	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "cluster"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(validFor),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key, certPEM(der)}, nil
}

// issue completes and signs the template for a new key.
func (a *authority) issue(template *x509.Certificate) (cert, key []byte, err error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	template.NotBefore, template.NotAfter = a.cert.NotBefore, a.cert.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, signer.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = privatePEM(signer)
	return certPEM(der), key, err
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func privatePEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// kubeconfig returns a self-contained kubeconfig, in JSON, which is valid YAML.
func kubeconfig(server string, ca, cert, key []byte) ([]byte, error) {
	type object = map[string]any
	named := func(kind string, content object) []object {
		return []object{{"name": "rota", kind: content}}
	}
	return json.MarshalIndent(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"clusters":        named("cluster", object{"server": server, "certificate-authority-data": ca}),
		"users":           named("user", object{"client-certificate-data": cert, "client-key-data": key}),
		"contexts":        named("context", object{"cluster": "rota", "user": "rota"}),
		"current-context": "rota",
	}, "", "  ")
}
