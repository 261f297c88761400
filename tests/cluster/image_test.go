package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func folder(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"bin/tool": 0o755, "etc/settings": 0o640} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("tool", filepath.Join(root, "bin", "link")); err != nil {
		t.Fatal(err)
	}
	return root
}

func entries(t *testing.T, archive io.Reader) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.ModTime.Unix() != 0 {
			t.Errorf("%s belongs to %d:%d and is of %v", header.Name, header.Uid, header.Gid, header.ModTime)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		all[header.Name] = append(content, header.Linkname...)
	}
}

func TestAnImageHoldsWhatItIsMadeFrom(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	err := imageVerb([]string{"--name", "rota:e2e", "--from", folder(t), "--entrypoint", "/bin/tool serve", "--user", "65532",
		"--env", "A=1", "--env", "B=2", "--label", "of=rota", "-o", out})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	files := entries(t, bytes.NewReader(text))
	blob := func(digest string) []byte {
		content, found := files["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
		if !found {
			t.Fatalf("no blob %s", digest)
		}
		return content
	}
	var index struct{ Manifests []descriptor }
	decode(t, files["index.json"], &index)
	if name := index.Manifests[0].Annotations["io.containerd.image.name"]; name != "docker.io/library/rota:e2e" {
		t.Errorf("the name is %s", name)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, blob(index.Manifests[0].Digest), &manifest)
	var config struct{ Config json.RawMessage }
	decode(t, blob(manifest.Config.Digest), &config)
	const want = `{"Cmd":null,"Entrypoint":["/bin/tool","serve"],"Env":["A=1","B=2"],"Labels":{"of":"rota"},"User":"65532","WorkingDir":""}`
	if string(config.Config) != want {
		t.Errorf("the config is %s", config.Config)
	}
	layer := entries(t, bytes.NewReader(blob(manifest.Layers[0].Digest)))
	for name, content := range map[string]string{"bin/": "", "bin/tool": "bin/tool", "bin/link": "tool", "etc/settings": "etc/settings"} {
		if found, there := layer[name]; !there || string(found) != content {
			t.Errorf("%s holds %q", name, found)
		}
	}
}

func TestTheSameInputMakesTheSameImage(t *testing.T) {
	var archives [][]byte
	for range 2 {
		root := folder(t)
		// The archive does not depend on the time.
		if err := os.Chtimes(filepath.Join(root, "bin/tool"), time.Time{}, time.Unix(int64(len(archives)), 0)); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "image.tar")
		made := image{Name: "a", From: []string{root}, Labels: map[string]string{"a": "1", "b": "2", "c": "3"}}
		if err := made.write(out); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, text)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archives differ")
	}
}

func TestATarFileIsALayerAsItIs(t *testing.T) {
	work := t.TempDir()
	var layer bytes.Buffer
	if err := writeFolder(&layer, folder(t)); err != nil {
		t.Fatal(err)
	}
	from, out := filepath.Join(work, "layer.tar"), filepath.Join(work, "image.tar")
	if err := os.WriteFile(from, layer.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (image{Name: "a", From: []string{from, from}}).write(out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if count := bytes.Count(text, layer.Bytes()); count != 1 {
		t.Errorf("the layer is in it %d times", count)
	}
}

func TestInvalidImagesAreReported(t *testing.T) {
	work := t.TempDir()
	compressed := filepath.Join(work, "layer.tar.gz")
	var text bytes.Buffer
	writer := gzip.NewWriter(&text)
	if err := writeFolder(writer, folder(t)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(compressed, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(work, "image.tar")
	for want, args := range map[string][]string{
		"compressed":          {"--name", "a", "--from", compressed, "-o", out},
		"no such file":        {"--name", "a", "--from", filepath.Join(work, "none"), "-o", out},
		"--name is missing":   {"--from", work, "-o", out},
		"--from is missing":   {"--name", "a", "-o", out},
		"NAME=VALUE":          {"--env", "A", "--name", "a", "--from", work, "-o", out},
		"inside its own":      {"--name", "a", "--from", work, "-o", out},
		"unexpected argument": {"--name", "a", "--from", work, "-o", out, "more"},
	} {
		if err := imageVerb(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a partial image is left")
	}
}

func TestNamesAreCompletedAsTheKubeletDoes(t *testing.T) {
	for name, full := range map[string]string{
		"rota":                "docker.io/library/rota:latest",
		"rota:e2e":            "docker.io/library/rota:e2e",
		"team/rota:e2e":       "docker.io/team/rota:e2e",
		"localhost/rota:e2e":  "localhost/rota:e2e",
		"images.example/rota": "images.example/rota:latest",
		"host:5000/a/rota:1":  "host:5000/a/rota:1",
	} {
		if got := fullName(name); got != full {
			t.Errorf("%s becomes %s", name, got)
		}
	}
}
