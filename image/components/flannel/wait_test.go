package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestMissingSaysWhatThePodNetworkWaitsFor(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	annotated := metav1.ObjectMeta{Annotations: map[string]string{"a": "b"}}
	for name, test := range map[string]struct {
		found corev1.Node
		err   error
		want  string
	}{
		"no API server":   {err: errors.New("connection refused"), want: "no API server answers yet"},
		"a slow one":      {err: context.DeadlineExceeded, want: "the API server does not answer in time"},
		"no node":         {err: apierrors.NewNotFound(nodes, "n"), want: `node "n" is not registered yet`},
		"not allowed":     {err: apierrors.NewForbidden(nodes, "n", nil), want: "the API server does not let flanneld read"},
		"not annotated":   {found: corev1.Node{}, want: `node "n" was not annotated by its kubelet yet`},
		"no pod network":  {found: corev1.Node{ObjectMeta: annotated}, want: `node "n" has no pod network assigned yet`},
		"everything here": {found: corev1.Node{ObjectMeta: annotated, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24"}}},
	} {
		got := missing(&test.found, test.err, "n")
		if (test.want == "") != (got == "") || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
