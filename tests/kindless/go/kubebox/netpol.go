package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

func init() { components["netpol"] = netpolMain }

// netpolMain enforces NetworkPolicy on the one node: every change renders one nftables table, loaded in one transaction.
//
// It needs routed pod links (CNI ptp): over a bridge, pod-to-pod packets would not pass the forward hook.
func netpolMain() {
	flags := flag.NewFlagSet("netpol", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "empty: in-cluster")
	_ = flags.Parse(os.Args[1:])

	factory := informers.NewSharedInformerFactory(newClient(*kubeconfig), 0)
	pods := factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()

	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	events := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(events); err != nil {
			log.Fatal(err)
		}
	}
	factory.Start(context.Background().Done())
	factory.WaitForCacheSync(context.Background().Done())

	loaded := ""
	for range changed {
		allPods, _ := pods.Lister().List(labels.Everything())
		allNamespaces, _ := namespaces.Lister().List(labels.Everything())
		allPolicies, _ := policies.Lister().List(labels.Everything())
		if table := newRuleset(allPods, allNamespaces, allPolicies).render(); table != loaded {
			if err := load(table); err != nil {
				log.Printf("%v\n%s", err, table)
				time.Sleep(time.Second)
				notify()
			} else {
				loaded = table
				log.Printf("loaded rules for %d policies", len(allPolicies))
			}
		}
		time.Sleep(100 * time.Millisecond) // a rollout changes many pods at once
	}
}

func load(table string) error {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(table)
	nft.Stderr = os.Stderr
	return nft.Run()
}
