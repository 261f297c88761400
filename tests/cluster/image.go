package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// image describes an archive. The same input produces the same archive, byte for byte.
type image struct {
	Name       string
	From       []string // folders or tar files, each a layer; later ones lie over earlier ones
	Entrypoint []string
	Cmd        []string
	User       string
	Workdir    string
	Env        []string
	Labels     map[string]string
}

func imageVerb(args []string) error {
	var made image
	var out string
	flags := flag.NewFlagSet("cluster image", flag.ContinueOnError)
	flags.StringVar(&made.Name, "name", "", "what pods call it: `NAME:TAG`")
	flags.Func("from", "`LAYERS`: folders or tar files, with commas between; files of a folder belong to root", func(text string) error {
		made.From = append(made.From, strings.Split(text, ",")...)
		return nil
	})
	flags.Func("entrypoint", "`WORDS` of the program, with spaces between", func(text string) error {
		made.Entrypoint = strings.Fields(text)
		return nil
	})
	flags.Func("cmd", "`WORDS` that follow unless a pod gives others", func(text string) error {
		made.Cmd = strings.Fields(text)
		return nil
	})
	flags.StringVar(&made.User, "user", "", "`UID[:GID]`; a number, or pods with runAsNonRoot refuse it")
	flags.StringVar(&made.Workdir, "workdir", "", "`FOLDER` to start in")
	flags.Func("env", "`NAME=VALUE`, any number of times", func(text string) error {
		if !strings.Contains(text, "=") {
			return errors.New("needs NAME=VALUE")
		}
		made.Env = append(made.Env, text)
		return nil
	})
	flags.Func("label", "`NAME=VALUE`, any number of times", func(text string) error {
		name, value, found := strings.Cut(text, "=")
		if !found {
			return errors.New("needs NAME=VALUE")
		}
		if made.Labels == nil {
			made.Labels = map[string]string{}
		}
		made.Labels[name] = value
		return nil
	})
	flags.StringVar(&out, "o", "", "`FILE` to write")
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	for flag, given := range map[string]bool{"--name": made.Name != "", "--from": len(made.From) > 0, "-o": out != ""} {
		if !given {
			return fmt.Errorf("%s is missing", flag)
		}
	}
	return made.write(out)
}

// fullName returns the name as the kubelet completes it before it looks up the image.
func fullName(name string) string {
	first, _, found := strings.Cut(name, "/")
	switch {
	case !found:
		name = "docker.io/library/" + name
	case first != "localhost" && !strings.ContainsAny(first, ".:"):
		name = "docker.io/" + name
	}
	if !strings.Contains(name[strings.LastIndex(name, "/"):], ":") {
		name += ":latest"
	}
	return name
}
