// Command containerd is the containerd daemon, and its client when it is called ctr (a hard link). Its plugins are
// those that CRI, the transfer service and ctr need (plugins.go); upstream's other snapshotters, differs and tracing
// are left out, each an import that a node never uses.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
)

func main() {
	ctx := context.Background()
	name, run := "containerd", command.App().Run
	if filepath.Base(os.Args[0]) == "ctr" {
		name, run = "ctr", ctr.New().Run
	}
	if err := run(ctx, os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
