// Command flanneld is flannel's agent for a kubeboot node, on flannel's own packages: Kubernetes' Node objects carry
// the subnets, a backend (vxlan, host-gw or wireguard) carries the packets, nftables masquerades. It is a service of
// the host, started before there is an API server, so it waits for the node's pod network first, and tells systemd
// READY=1 once the routes stand.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	_ "github.com/flannel-io/flannel/pkg/backend/wireguard"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	"github.com/flannel-io/flannel/pkg/version"
	"k8s.io/klog/v2"
)

// annotationPrefix is upstream's, so that existing tools and network policies' operators find what they know.
const annotationPrefix = "flannel.alpha.coreos.com"

// resync is unused by the nftables manager, which sets its rules once; its interface wants a number of seconds.
const resync = 5

// options are the command line.
type options struct {
	kubeconfig string // credentials for the API server
	nodeName   string // this node's name in the cluster
	netConf    string // flannel's net-conf.json: networks and backend
	subnetFile string // where the subnet is written for others, as KEY=VALUE
	nodeIP     string // the address that other nodes reach this one at; chooses the interface
}

func main() {
	var o options
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file")
	flag.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "name of this node (default $NODE_NAME)")
	flag.StringVar(&o.netConf, "net-conf", "/run/kubeboot/config/flannel.json", "flannel's network configuration (net-conf.json)")
	flag.StringVar(&o.subnetFile, "subnet-file", "/run/flannel/subnet.env", "file that gets the subnet and MTU")
	flag.StringVar(&o.nodeIP, "node-ip", "", "address of this node for the other nodes (default: of the default route's interface)")
	klog.InitFlags(nil)
	flag.Parse()
	if *showVersion {
		fmt.Println("flanneld", version.Version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "flanneld:", err)
		os.Exit(1)
	}
}

// run brings the node's network up and keeps it so until ctx ends.
func run(ctx context.Context, o options) error {
	if o.kubeconfig == "" || o.nodeName == "" {
		return errors.New("--kubeconfig and --node-name are needed")
	}
	if err := waitForPodNetwork(ctx, o.kubeconfig, o.nodeName); err != nil {
		return err
	}
	// The subnet manager takes the node's name from the environment only.
	if err := os.Setenv("NODE_NAME", o.nodeName); err != nil {
		return err
	}
	manager, err := kube.NewSubnetManager(ctx, "", o.kubeconfig, annotationPrefix, o.netConf, true)
	if err != nil {
		return fmt.Errorf("subnet manager: %w", err)
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("network configuration %s: %w", o.netConf, err)
	}
	external, err := externalInterface(ctx, manager, config, o.nodeIP)
	if err != nil {
		return err
	}
	status(fmt.Sprintf("Registering %s network on %s", config.BackendType, external.IfaceName))
	be, err := backend.NewManager(ctx, manager, external).GetBackend(config.BackendType)
	if err != nil {
		return fmt.Errorf("backend %q: %w", config.BackendType, err)
	}
	var group sync.WaitGroup
	network, err := be.RegisterNetwork(ctx, &group, config)
	if err != nil {
		return fmt.Errorf("register %s network: %w", config.BackendType, err)
	}
	if err := trafficRules(ctx, config, network, o.subnetFile); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.subnetFile), 0o755); err != nil {
		return fmt.Errorf("subnet file: %w", err)
	}
	lease := network.Lease()
	if err := manager.HandleSubnetFile(o.subnetFile, config, true, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return fmt.Errorf("write subnet file %s: %w", o.subnetFile, err)
	}
	group.Go(func() { network.Run(ctx) })
	if _, err := daemon.SdNotify(false, "READY=1\nSTATUS="+summary(config, network)); err != nil {
		klog.Warningf("systemd was not told that the network stands: %v", err)
	}
	if err := completeLease(ctx, manager, network, &group); err != nil {
		return err
	}
	group.Wait()
	return nil
}

// externalInterface finds the interface that packets to other nodes leave by. An address in the node's
// public-ip-overwrite annotation wins, as upstream.
func externalInterface(ctx context.Context, manager subnet.Manager, config *subnet.Config, nodeIP string) (*backend.ExternalInterface, error) {
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return nil, fmt.Errorf("IP families: %w", err)
	}
	var public ipmatch.PublicIPOpts
	if address := net.ParseIP(nodeIP); address != nil && address.To4() != nil {
		public.PublicIP = nodeIP
	} else if address != nil {
		public.PublicIPv6 = nodeIP
	} else if nodeIP != "" {
		return nil, fmt.Errorf("--node-ip %q is no IP address", nodeIP)
	}
	lookup := nodeIP
	if v4, v6 := manager.GetStoredPublicIP(ctx); v4 != "" || v6 != "" {
		public.PublicIP, public.PublicIPv6 = v4, v6
	}
	external, err := ipmatch.LookupExtIface(lookup, "", "", stack, public)
	if err != nil {
		return nil, fmt.Errorf("no interface for other nodes (--node-ip %q): %w", nodeIP, err)
	}
	return external, nil
}

// trafficRules lets pods' packets through, and masquerades those that leave the cluster.
func trafficRules(ctx context.Context, config *subnet.Config, network backend.Network, subnetFile string) error {
	rules := &nftables.NFTablesManager{}
	if err := rules.Init(ctx); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	// The manager flushes its own chains, so no earlier network has to be remembered.
	var none4 ip.IP4Net
	var none6 ip.IP6Net
	err := rules.SetupAndEnsureMasqRules(ctx, config.Network, none4, none4, config.IPv6Network, none6, none6, network.Lease(), resync, false)
	if err != nil {
		return fmt.Errorf("masquerading: %w", err)
	}
	rules.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, resync)
	return nil
}

// completeLease takes the NetworkUnavailable condition off the node. The API server may just be restarting: tried for
// two minutes, then left to systemd, which starts flanneld anew.
func completeLease(ctx context.Context, manager subnet.Manager, network backend.Network, group *sync.WaitGroup) error {
	var err error
	for attempt := range 60 {
		if err = manager.CompleteLease(ctx, network.Lease(), group); err == nil {
			return nil
		}
		klog.Warningf("node condition NetworkUnavailable, attempt %d: %v", attempt+1, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
	return fmt.Errorf("set node condition NetworkUnavailable: %w", err)
}
