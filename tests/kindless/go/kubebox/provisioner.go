package main

import (
	"context"
	"flag"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	provisionedBy = "pv.kubernetes.io/provisioned-by"
	askedOf       = "volume.kubernetes.io/storage-provisioner"
	selectedNode  = "volume.kubernetes.io/selected-node"
)

func init() { components["provisioner"] = provisionerMain }

// provisioner answers PersistentVolumeClaims with directories of the node.
type provisioner struct {
	name      string
	directory string
	client    kubernetes.Interface
	classes   storagelisters.StorageClassLister
}

func newClient(kubeconfig string) kubernetes.Interface {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig) // an empty path means in-cluster
	if err != nil {
		log.Fatal(err)
	}
	return kubernetes.NewForConfigOrDie(config)
}

func provisionerMain() {
	flags := flag.NewFlagSet("provisioner", flag.ExitOnError)
	directory := flags.String("directory", "", "where volumes are made; the same path in the pod and on the node")
	name := flags.String("name", "", "provisioner name, as in the StorageClass")
	kubeconfig := flags.String("kubeconfig", "", "empty: in-cluster")
	_ = flags.Parse(os.Args[1:])

	client := newClient(*kubeconfig)
	factory := informers.NewSharedInformerFactory(client, 30*time.Second)
	classes := factory.Storage().V1().StorageClasses()
	p := provisioner{*name, filepath.Clean(*directory), client, classes.Lister()}
	synced := classes.Informer().HasSynced
	listen(factory.Core().V1().PersistentVolumeClaims().Informer(), p.provision)
	listen(factory.Core().V1().PersistentVolumes().Informer(), p.reclaim)
	stop := make(chan struct{})
	factory.Start(stop)
	cache.WaitForCacheSync(stop, synced)
	log.Print("provisioner is ready")
	<-stop
}

func listen(informer cache.SharedIndexInformer, handle func(any)) {
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    handle,
		UpdateFunc: func(_, object any) { handle(object) },
	})
	if err != nil {
		log.Fatal(err)
	}
}

func (p provisioner) provision(object any) {
	claim, ok := object.(*corev1.PersistentVolumeClaim)
	if !ok || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil ||
		claim.Spec.StorageClassName == nil || claim.Annotations[askedOf] != p.name {
		return
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil { // not in the cache yet: the next resync comes in 30 s, the class's own event sooner
		return
	}
	node := claim.Annotations[selectedNode]
	if class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer && node == "" {
		return
	}
	volume := "pvc-" + string(claim.UID)
	path := filepath.Join(p.directory, volume+"_"+claim.Namespace+"_"+claim.Name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		log.Print(err)
		return
	}
	_ = os.Chmod(path, 0o777) // past the umask: the pod's user is not known here
	_, err = p.client.CoreV1().PersistentVolumes().Create(
		context.Background(), persistentVolume(volume, path, node, p.name, class, claim), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		log.Print(err)
		return
	}
	log.Print("provisioned ", path)
}

func persistentVolume(name, path, node, provisioner string, class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	create := corev1.HostPathDirectoryOrCreate
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              class.Name,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{"storage": claim.Spec.Resources.Requests["storage"]},
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &create},
			},
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
		},
	}
	if node != "" {
		here := corev1.NodeSelectorRequirement{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}
		volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{here}}},
		}}
	}
	return volume
}

// reclaim removes a released volume's directory, but never a path outside our own folder.
func (p provisioner) reclaim(object any) {
	volume, ok := object.(*corev1.PersistentVolume)
	if !ok || volume.Annotations[provisionedBy] != p.name || volume.Spec.HostPath == nil ||
		volume.Status.Phase != corev1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete ||
		filepath.Dir(volume.Spec.HostPath.Path) != p.directory {
		return
	}
	if err := os.RemoveAll(volume.Spec.HostPath.Path); err != nil {
		log.Print(err)
		return
	}
	if err := p.client.CoreV1().PersistentVolumes().Delete(context.Background(), volume.Name, metav1.DeleteOptions{}); err != nil {
		log.Print(err)
		return
	}
	log.Print("removed ", volume.Spec.HostPath.Path)
}
