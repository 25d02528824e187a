package main

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const policyTable = "stoker-netpol"

// ruleset is what the policies mean for the pods that have an address now.
type ruleset struct {
	pods            []*corev1.Pod
	namespaceLabels map[string]labels.Set
	policies        []*networkingv1.NetworkPolicy
}

func newRuleset(pods []*corev1.Pod, namespaces []*corev1.Namespace, policies []*networkingv1.NetworkPolicy) ruleset {
	r := ruleset{namespaceLabels: map[string]labels.Set{}, policies: policies}
	for _, namespace := range namespaces {
		r.namespaceLabels[namespace.Name] = namespace.Labels
	}
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if pod.Status.PodIP != "" && !pod.Spec.HostNetwork && !ended {
			r.pods = append(r.pods, pod)
		}
	}
	sort.Slice(r.pods, func(i, j int) bool { return r.pods[i].Status.PodIP < r.pods[j].Status.PodIP })
	sort.Slice(r.policies, func(i, j int) bool {
		a, b := r.policies[i], r.policies[j]
		return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
	})
	return r
}

// render hooks in behind destination NAT, so that a packet to a Service already carries the pod's address.
// Kubelet probes leave by the output hook and are never filtered.
func (r ruleset) render() string {
	var chains strings.Builder
	ingress := r.isolate(&chains, networkingv1.PolicyTypeIngress, "in", "saddr")
	egress := r.isolate(&chains, networkingv1.PolicyTypeEgress, "eg", "daddr")

	var table strings.Builder
	fmt.Fprintf(&table, "table ip %[1]s {}\ndelete table ip %[1]s\ntable ip %[1]s {\n%[2]s", policyTable, chains.String())
	for _, hook := range []string{"forward", "input"} { // input: a pod calls a process of the node, such as the API server
		fmt.Fprintf(&table, "\tchain %[1]s {\n\t\ttype filter hook %[1]s priority -5; policy accept;\n", hook)
		table.WriteString("\t\tct state established,related accept\n")
		if len(egress) > 0 {
			fmt.Fprintf(&table, "\t\tip saddr vmap { %s }\n", strings.Join(egress, ", "))
		}
		if len(ingress) > 0 && hook == "forward" {
			fmt.Fprintf(&table, "\t\tip daddr vmap { %s }\n", strings.Join(ingress, ", "))
		}
		table.WriteString("\t}\n")
	}
	table.WriteString("}\n")
	return table.String()
}

// isolate writes one chain per pod that a policy selects, and returns the verdict map's elements for them.
func (r ruleset) isolate(chains *strings.Builder, direction networkingv1.PolicyType, prefix, peerField string) []string {
	var verdicts []string
	for _, pod := range r.pods {
		var rules []string
		isolated := false
		for _, policy := range r.policies {
			if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels) || !covers(policy, direction) {
				continue
			}
			isolated = true
			if direction == networkingv1.PolicyTypeIngress {
				for _, rule := range policy.Spec.Ingress {
					rules = append(rules, r.allow(policy.Namespace, peerField, rule.From, rule.Ports, pod)...)
				}
			} else {
				for _, rule := range policy.Spec.Egress {
					rules = append(rules, r.allow(policy.Namespace, peerField, rule.To, rule.Ports, nil)...)
				}
			}
		}
		if !isolated {
			continue
		}
		chain := prefix + "_" + strings.ReplaceAll(pod.Status.PodIP, ".", "_")
		fmt.Fprintf(chains, "\tchain %s { # %s/%s\n", chain, pod.Namespace, pod.Name)
		for _, rule := range rules {
			fmt.Fprintf(chains, "\t\t%s\n", strings.TrimSpace(rule+" return"))
		}
		chains.WriteString("\t\tcounter drop\n\t}\n")
		verdicts = append(verdicts, pod.Status.PodIP+" : jump "+chain)
	}
	return verdicts
}

func selects(selector *metav1.LabelSelector, set labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}

func covers(policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	for _, named := range policy.Spec.PolicyTypes {
		if named == direction {
			return true
		}
	}
	// The API server fills policyTypes in; an empty list is an object from before that defaulting.
	return len(policy.Spec.PolicyTypes) == 0 && (direction == networkingv1.PolicyTypeIngress || len(policy.Spec.Egress) > 0)
}

// allow gives the nft matches of one rule. The target is the receiving pod where it is known: a named port means
// another number in each pod.
func (r ruleset) allow(namespace, peerField string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, target *corev1.Pod) []string {
	if len(peers) == 0 {
		return portMatches(ports, target)
	}
	var matches []string
	var addresses []string
	perPod := target == nil && hasNamedPort(ports)
	for _, peer := range peers {
		if peer.IPBlock != nil {
			for _, port := range portMatches(ports, target) {
				if block := blockMatch(peer.IPBlock, peerField); block != "" {
					matches = append(matches, block+" "+port)
				}
			}
			continue
		}
		for _, pod := range r.pods {
			if !r.isPeer(namespace, peer, pod) {
				continue
			}
			if perPod {
				for _, port := range portMatches(ports, pod) {
					matches = append(matches, fmt.Sprintf("ip %s %s %s", peerField, pod.Status.PodIP, port))
				}
			} else if len(addresses) == 0 || addresses[len(addresses)-1] != pod.Status.PodIP {
				addresses = append(addresses, pod.Status.PodIP)
			}
		}
	}
	if len(addresses) > 0 {
		sort.Strings(addresses)
		unique := addresses[:1]
		for _, address := range addresses[1:] {
			if address != unique[len(unique)-1] { // nft refuses a set that names an element twice
				unique = append(unique, address)
			}
		}
		for _, port := range portMatches(ports, target) {
			matches = append(matches, fmt.Sprintf("ip %s { %s } %s", peerField, strings.Join(unique, ", "), port))
		}
	}
	return matches
}

func (r ruleset) isPeer(namespace string, peer networkingv1.NetworkPolicyPeer, pod *corev1.Pod) bool {
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if !selects(peer.NamespaceSelector, r.namespaceLabels[pod.Namespace]) {
		return false
	}
	return peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels)
}

// blockMatch is empty for IPv6 blocks: this cluster has none, and one foreign address would make nft refuse the table.
func blockMatch(block *networkingv1.IPBlock, peerField string) string {
	if prefix, err := netip.ParsePrefix(block.CIDR); err != nil || !prefix.Addr().Is4() {
		return ""
	}
	match := fmt.Sprintf("ip %s %s", peerField, block.CIDR)
	if len(block.Except) > 0 {
		match += fmt.Sprintf(" ip %s != { %s }", peerField, strings.Join(block.Except, ", "))
	}
	return match
}

func hasNamedPort(ports []networkingv1.NetworkPolicyPort) bool {
	for _, port := range ports {
		if port.Port != nil && port.Port.StrVal != "" {
			return true
		}
	}
	return false
}

// portMatches is one empty match for "all ports", and nothing at all where no named port exists on the target.
func portMatches(ports []networkingv1.NetworkPolicyPort, target *corev1.Pod) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	var matches []string
	for _, port := range ports {
		protocol := "tcp"
		if port.Protocol != nil {
			protocol = strings.ToLower(string(*port.Protocol))
		}
		switch {
		case port.Port == nil:
			matches = append(matches, "meta l4proto "+protocol)
		case port.Port.StrVal != "":
			matches = append(matches, namedPortMatches(port.Port.StrVal, protocol, target)...)
		case port.EndPort != nil:
			matches = append(matches, fmt.Sprintf("%s dport %d-%d", protocol, port.Port.IntVal, *port.EndPort))
		default:
			matches = append(matches, fmt.Sprintf("%s dport %d", protocol, port.Port.IntVal))
		}
	}
	return matches
}

// namedPortMatches looks in init containers, too: a native sidecar's port can be named in a policy.
func namedPortMatches(name, protocol string, target *corev1.Pod) []string {
	if target == nil {
		return nil
	}
	var matches []string
	containers := append(append([]corev1.Container{}, target.Spec.InitContainers...), target.Spec.Containers...)
	for _, container := range containers {
		for _, port := range container.Ports {
			if port.Name == name && (strings.EqualFold(string(port.Protocol), protocol) || port.Protocol == "" && protocol == "tcp") {
				matches = append(matches, fmt.Sprintf("%s dport %d", protocol, port.ContainerPort))
			}
		}
	}
	return matches
}
