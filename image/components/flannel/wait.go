package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/flannel-io/flannel/pkg/backend"
	"github.com/flannel-io/flannel/pkg/subnet"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// At a first boot flanneld starts a minute before the API server answers; on a lost control plane it may wait for
// days. So it asks often at first, never more seldom than every two seconds, and for as long as systemd lets it run.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 2 * time.Second
	callTimeout  = 5 * time.Second
)

// waitForPodNetwork returns when the node has a pod network. Flannel's own code would give up where the node has none
// yet, and its informer backs off to half a minute while there is no API server.
func waitForPodNetwork(ctx context.Context, kubeconfig, node string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	pause, said := firstPause, ""
	for {
		waiting := podNetworkMissing(ctx, client, node)
		if waiting == "" {
			return nil
		}
		if waiting != said {
			said = waiting
			status("Waiting: " + waiting)
			klog.Info(waiting)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(pause*3/2, longestPause)
	}
}

// podNetworkMissing says what the node's pod network waits for; nothing when it is there.
func podNetworkMissing(ctx context.Context, client kubernetes.Interface, node string) string {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if waiting := missing(found, err, node); waiting != "" {
		return waiting
	}
	// Every node may read itself; of the others flannel's code reads all, and a new cluster's agent permits that first.
	_, err = client.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return fmt.Sprintf("the API server does not list the nodes: %v", err)
	}
	return ""
}

// missing is podNetworkMissing's rule.
func missing(found *corev1.Node, err error, node string) string {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("node %q is not registered yet", node)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Sprintf("the API server does not let flanneld read node %q: %v", node, err)
	case errors.Is(err, context.DeadlineExceeded):
		return "the API server does not answer in time"
	case err != nil:
		return "no API server answers yet"
	case len(found.Annotations) == 0:
		// A kubelet's node always has some; flannel's code adds its own to them and panics where there are none.
		return fmt.Sprintf("node %q was not annotated by its kubelet yet", node)
	case found.Spec.PodCIDR == "":
		return fmt.Sprintf("node %q has no pod network assigned yet (spec.podCIDR)", node)
	}
	return ""
}

// status is what `systemctl status` shows.
func status(text string) {
	if _, err := daemon.SdNotify(false, "STATUS="+text); err != nil {
		klog.V(2).Infof("systemd status: %v", err)
	}
}

// summary says in one line what stands.
func summary(config *subnet.Config, network backend.Network) string {
	return fmt.Sprintf("Pod network %s by %s, MTU %d", network.Lease().Subnet, config.BackendType, network.MTU())
}
