"""Build what the tests of Kubernetes run, before their time is bounded: 7 minutes on two cores, once."""

from __future__ import annotations

from tests.support import stack_programs as programs

NAMES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet")

if __name__ == "__main__":
    for name in NAMES:
        programs.kubernetes(name)
    programs.coredns()
