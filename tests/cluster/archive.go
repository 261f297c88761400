package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// descriptor is a reference to a blob in the OCI format.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

const (
	layoutVersion = "1.0.0"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// write writes the archive: an OCI image layout in a tar file.
func (i image) write(out string) (err error) {
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	for _, from := range i.From {
		folder, err := filepath.Abs(from)
		if err != nil {
			return err
		}
		if inside, err := filepath.Rel(folder, out); err == nil && filepath.IsLocal(inside) {
			return fmt.Errorf("%s is inside its own source folder %s", out, from)
		}
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(fmt.Errorf("failed to write image %s: %w", i.Name, err), os.Remove(out))
		}
	}()
	archive := &layout{tar: tar.NewWriter(file), written: map[string]bool{}}

	var layers []descriptor
	var contents []string
	for _, from := range i.From {
		layer, err := archive.layer(from, filepath.Dir(out))
		if err != nil {
			return fmt.Errorf("layer %s: %w", from, err)
		}
		layers, contents = append(layers, layer), append(contents, layer.Digest)
	}
	type object = map[string]any
	settings := object{
		"User": i.User, "WorkingDir": i.Workdir, "Entrypoint": i.Entrypoint, "Cmd": i.Cmd, "Env": i.Env, "Labels": i.Labels,
	}
	config, err := archive.json(mediaConfig, object{
		"architecture": runtime.GOARCH, "os": "linux", "config": settings,
		"rootfs": object{"type": "layers", "diff_ids": contents},
	})
	if err != nil {
		return err
	}
	manifest, err := archive.json(mediaManifest, object{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": config, "layers": layers,
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"io.containerd.image.name": fullName(i.Name)}
	index, err := json.Marshal(object{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": []descriptor{manifest}})
	if err != nil {
		return err
	}
	if err := archive.file("index.json", int64(len(index)), bytes.NewReader(index)); err != nil {
		return err
	}
	version := fmt.Sprintf(`{"imageLayoutVersion":%q}`, layoutVersion)
	if err := archive.file("oci-layout", int64(len(version)), strings.NewReader(version)); err != nil {
		return err
	}
	return archive.tar.Close()
}

// layout is an archive while it is being written.
type layout struct {
	tar     *tar.Writer
	written map[string]bool
}

func (l *layout) file(name string, size int64, content io.Reader) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}
	if err := l.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(l.tar, content)
	return err
}

func (l *layout) blob(kind string, content io.ReadSeeker) (descriptor, error) {
	sum := sha256.New()
	size, err := io.Copy(sum, content)
	if err != nil {
		return descriptor{}, err
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return descriptor{}, err
	}
	digest := fmt.Sprintf("%x", sum.Sum(nil))
	if !l.written[digest] {
		l.written[digest] = true
		err = l.file("blobs/sha256/"+digest, size, content)
	}
	return descriptor{MediaType: kind, Digest: "sha256:" + digest, Size: size}, err
}

func (l *layout) json(kind string, value any) (descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return l.blob(kind, bytes.NewReader(text))
}

// layer adds a tar file unchanged, or a folder as a tar file; work is a folder for temporary files.
func (l *layout) layer(from, work string) (descriptor, error) {
	info, err := os.Stat(from)
	if err != nil {
		return descriptor{}, err
	}
	if !info.IsDir() {
		file, err := os.Open(from)
		if err != nil {
			return descriptor{}, err
		}
		defer file.Close()
		if _, err := tar.NewReader(file).Next(); err != nil {
			return descriptor{}, fmt.Errorf("not an uncompressed tar file: %w", err)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return descriptor{}, err
		}
		return l.blob(mediaLayer, file)
	}
	file, err := os.CreateTemp(work, "layer-")
	if err != nil {
		return descriptor{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := writeFolder(file, from); err != nil {
		return descriptor{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return descriptor{}, err
	}
	return l.blob(mediaLayer, file)
}
