// kubebox holds every Kubernetes component in one executable, chosen by argv[0] or by the first argument.
//
// One link step and one copy of the shared libraries instead of eight: it builds in a third of the time, and the
// processes of a cluster share their text pages.
package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"sort"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components are built inside closures: constructing a command registers global flags, and two components in one
// process would clash over them.
var components = map[string]func(){
	"kube-apiserver":          command(func() *cobra.Command { return apiserver.NewAPIServerCommand() }),
	"kube-controller-manager": command(func() *cobra.Command { return controllermanager.NewControllerManagerCommand() }),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              command(func() *cobra.Command { return proxy.NewProxyCommand() }),
	"kubelet":                 command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"etcd":                    func() { etcdmain.Main(os.Args) },
	"kubectl": func() {
		setHome()
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	},
}

func command(build func() *cobra.Command) func() {
	return func() { os.Exit(cli.Run(build())) }
}

// setHome keeps kubectl from writing its cache into the working directory where a caller passes no environment.
func setHome() {
	if os.Getenv("HOME") != "" {
		return
	}
	if me, err := user.Current(); err == nil && me.HomeDir != "" {
		_ = os.Setenv("HOME", me.HomeDir)
	}
}

func main() {
	if start, ok := components[filepath.Base(os.Args[0])]; ok {
		start()
		return
	}
	if len(os.Args) > 1 {
		if start, ok := components[os.Args[1]]; ok {
			os.Args = os.Args[1:]
			start()
			return
		}
	}
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintln(os.Stderr, "usage: kubebox COMPONENT [flags]; components:", names)
	os.Exit(2)
}
