package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	// Number of volumes, created in advance: each is used by one claim only.
	volumes = 100
	// Generous, for machines under load.
	settlesIn = "--timeout=180s"
)

// Images of the cluster itself; also named in files/.
var ownImages = []struct{ image, program string }{
	{"cluster/pause:1", "pause"},
	{"cluster/coredns:1", "coredns"},
}

// complete adds what pods expect to a running node: images, DNS, storage.
func (c *cluster) complete(ctx context.Context) error {
	for _, own := range ownImages {
		root := c.path("images", own.program)
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		program, err := os.ReadFile(filepath.Join(c.bin, own.program))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, own.program), program, 0o755); err != nil {
			return err
		}
		archive := root + ".tar"
		err = image{Name: own.image, From: []string{root}, Entrypoint: []string{"/" + own.program}, User: "65532"}.write(archive)
		if err != nil {
			return err
		}
		if err := c.load(ctx, []string{archive}); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.path("images")); err != nil {
		return err
	}
	manifests, err := files.ReadDir("files/manifests")
	if err != nil {
		return err
	}
	objects := volumeManifests()
	for _, entry := range manifests {
		text, err := files.ReadFile("files/manifests/" + entry.Name())
		if err != nil {
			return err
		}
		objects += "---\n" + c.network.fill(text)
	}
	if _, err := c.kubectl(ctx, objects, "create", "--filename=-"); err != nil {
		return err
	}
	for _, state := range [][]string{
		{"--for=condition=Ready", "node/" + nodeName},
		{"--for=condition=Available", "--namespace=kube-system", "deployment/coredns"},
		{"--for=create", "--namespace=default", "serviceaccount/default"},
	} {
		if _, err := c.kubectl(ctx, "", append([]string{"wait", settlesIn}, state...)...); err != nil {
			return err
		}
	}
	return nil
}

// Volumes of type `local` instead of `hostPath`: they respect the fsGroup of pods.
func volumeManifests() string {
	var all strings.Builder
	for number := range volumes {
		fmt.Fprintf(&all, `---
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-%d}
spec:
  storageClassName: standard
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce, ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  local: {path: /var/lib/volumes/%d}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]
`, number, number, nodeName)
	}
	return all.String()
}
