package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The node's first processes are this program again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "__") {
		main()
		return
	}
	os.Exit(m.Run())
}

// Complete lifecycle of a cluster, independent of other clusters on the machine.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Setenv("ROTA_CLUSTER_DIR", filepath.Join(t.TempDir(), "run"))
	c, err := fromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(c.log("*"))
			for _, log := range logs {
				if log != c.auditLog() {
					t.Logf("%s\n%s", log, lastLines(log, 15))
				}
			}
		}
		if err := c.down(); err != nil {
			t.Error(err)
		}
	})
	if err := packages(t.Context(), append(nodeNeeds, need{"busybox", "busybox-static"})); err != nil {
		t.Fatal(err)
	}
	if err := c.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := traces(t, c)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"an interrupted start leaves nothing", interrupted},
		{"it starts", starts},
		{"pods run under the strictest rules", podsRun},
		{"names are found", names},
		{"tokens can be checked", tokens},
		{"requests are counted", audited},
		{"a killed API server comes back", comesBack},
		{"up again changes nothing", upAgain},
		{"a crash is cleaned up", crash},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, c) }) {
			return
		}
	}
	namespace, err := c.namespace()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.down(); err != nil {
		t.Fatal(err)
	}
	same(t, before, traces(t, c))
	wait(t, "all processes to exit", func() error {
		left, err := processesIn(namespace)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left: %v", left)
		}
		return err
	})
	if _, err := os.Stat(c.dir); err == nil {
		t.Errorf("%s still exists", c.dir)
	}
}

func TestAFolderOfOthersStays(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "theirs")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &cluster{dir: dir}
	if err := c.down(); err == nil || !strings.Contains(err.Error(), "something other than a cluster") {
		t.Errorf("not rejected: %v", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func interrupted(t *testing.T, c *cluster) {
	before := traces(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.up(ctx) }()
	wait(t, "the API server to begin", func() error {
		_, err := os.Stat(c.log("kube-apiserver"))
		return err
	})
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Fatalf("not interrupted: %v", err)
	}
	if err := c.down(); err != nil {
		t.Fatal(err)
	}
	same(t, before, traces(t, c))
}

func starts(t *testing.T, c *cluster) {
	if err := c.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.isUp(); err != nil {
		t.Fatal(err)
	}
}

func podsRun(t *testing.T, c *cluster) {
	root := t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"bin/busybox": busybox, "etc/passwd": []byte("web:x:65532:65532::/:\n")} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(t.TempDir(), "web.tar")
	err = imageVerb([]string{"--name", "web:test", "--from", root, "--entrypoint", "/bin/busybox sh -c", "--user", "65532",
		"--env", "PATH=/bin", "-o", archive})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.load(t.Context(), []string{archive}); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile("testdata/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, c, string(manifest), "create", "--filename=-")
	kubectl(t, c, "", "rollout", "status", "--timeout=120s", "--namespace=web", "deployment/web")
	if logs := kubectl(t, c, "", "logs", "--namespace=web", "deployment/web"); !strings.Contains(logs, "serving") {
		t.Errorf("logs: %q", logs)
	}
	if phase := kubectl(t, c, "", "get", "pvc", "data", "--namespace=web", "--output=jsonpath={.status.phase}"); phase != "Bound" {
		t.Errorf("the claim is %s", phase)
	}
}

func names(t *testing.T, c *cluster) {
	if page := inPod(t, c, "wget -qO- http://web/file"); page != "kept\n" {
		t.Errorf("the service returned %q", page)
	}
	if answer := inPod(t, c, "nslookup kubernetes.default.svc.cluster.local"); !strings.Contains(answer, c.network.serviceIP) {
		t.Errorf("DNS returned %q", answer)
	}
}

func audited(t *testing.T, c *cluster) {
	text, err := os.ReadFile(c.auditLog())
	if err != nil {
		t.Fatal(err)
	}
	var created int
	for _, line := range strings.Split(string(text), "\n") {
		if strings.Contains(line, `"verb":"create"`) && strings.Contains(line, `"objectRef":{"resource":"deployments","namespace":"web"`) {
			created++
		}
	}
	if created != 1 {
		t.Errorf("one deployment was created, but the audit log has %d", created)
	}
}

func comesBack(t *testing.T, c *cluster) {
	find := func() int {
		namespace, err := c.namespace()
		if err != nil {
			t.Fatal(err)
		}
		all, err := processesIn(namespace)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(all, func(p process) bool { return p.name == "kube-apiserver" })
		if at < 0 {
			return 0
		}
		return all[at].pid
	}
	old := find()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, "the API server to be back", func() error {
		if now := find(); now == 0 || now == old {
			return fmt.Errorf("its process is %d", now)
		}
		return c.isUp()
	})
	if page := inPod(t, c, "cat /data/file"); page != "kept\n" {
		t.Errorf("the pod returned %q", page)
	}
}

func upAgain(t *testing.T, c *cluster) {
	old, err := c.pid()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := c.pid(); err != nil || now != old {
		t.Errorf("the node was %d and is %d: %v", old, now, err)
	}
}

func crash(t *testing.T, c *cluster) {
	pid, err := c.pid()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := kubectl(t, c, "", "get", "namespaces", "--output=name"); strings.Contains(all, "web") {
		t.Errorf("remains of the old cluster: %s", all)
	}
}

func kubectl(t *testing.T, c *cluster, input string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	output, err := c.kubectl(ctx, input, args...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func inPod(t *testing.T, c *cluster, script string) string {
	t.Helper()
	return kubectl(t, c, "", "exec", "--namespace=web", "deployment/web", "--", "/bin/busybox", "sh", "-c", script)
}

func wait(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := await(2*time.Minute, what, check); err != nil {
		t.Fatal(err)
	}
}
