"""The Kubernetes API adapter: custom and external metrics of VMs for the HorizontalPodAutoscaler."""
