package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Volumes that are made beforehand: a claim takes one for good.
	volumes = 100
	// For a node that is under load.
	settlesIn = "--timeout=180s"
)

// Images that the cluster itself needs; files/ names them too.
var ownImages = []struct{ image, program string }{
	{"cluster/pause:1", "pause"},
	{"cluster/coredns:1", "coredns"},
}

// complete gives a node whose programs run what pods expect: images, DNS, storage.
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
		objects += "---\n" + string(text)
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

// Volumes of the kind `local` and not `hostPath`: they are given to a pod's fsGroup, as others are.
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

// load gives images to the node, and waits until the kubelet can use them.
func (c *cluster) load(ctx context.Context, archives []string) error {
	if len(archives) == 0 {
		return fmt.Errorf("load what? Name at least one image archive")
	}
	for _, archive := range archives {
		file, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer file.Close()
		cmd, err := c.ctr(ctx, "images", "import", "-")
		if err != nil {
			return err
		}
		cmd.Stdin = file
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot load %s: %w: %s", archive, err, strings.TrimSpace(string(output)))
		}
	}
	list := func(filter ...string) (string, error) {
		cmd, err := c.ctr(ctx, append([]string{"images", "list", "--quiet"}, filter...)...)
		if err != nil {
			return "", err
		}
		output, err := cmd.Output()
		return string(output), err
	}
	// containerd tells its half that the kubelet speaks to, which then labels them.
	return await(time.Minute, "the node to know its new images", func() error {
		all, err := list()
		if err != nil {
			return err
		}
		known, err := list(`labels."io.cri-containerd.image"==managed`)
		if err == nil && known != all {
			err = fmt.Errorf("of\n%sit knows\n%s", all, known)
		}
		return err
	})
}
