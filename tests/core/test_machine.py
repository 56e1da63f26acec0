from kiloworlds.core import devices, machine


def _group(root, path, **files):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_quota_and_limit_of_version_2_are_the_smallest_on_the_way_up(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("0::/pod/container\n")
    _group(root, ".", cpu__max="max 100000", memory__max="max")
    _group(root, "pod", cpu__max="150000 100000", memory__max=str(3 * 2**30))
    _group(root, "pod/container", cpu__max="400000 100000", memory__max=str(5 * 2**30))
    assert machine.cpu_quota(root, membership) == 1.5
    assert machine.memory_limit(root, membership) == 3 * 2**30


def test_quota_and_limit_of_version_1(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("5:cpuset:/\n4:cpu,cpuacct:/job\n3:memory:/host/path\n0::/\n")
    _group(root, "cpu,cpuacct/job", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    _group(root, "memory", memory__limit_in_bytes=str(2**31))
    assert machine.cpu_quota(root, membership) == 2.5
    assert machine.memory_limit(root, membership) == 2**31


def test_no_limits(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("2:cpu:/\n1:memory:/\n0::/\n")
    _group(root, "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    _group(root, "memory", memory__limit_in_bytes=str(2**63 - 4096))
    assert machine.cpu_quota(root, membership) is None
    assert machine.memory_limit(root, membership) is None
    assert machine.cpu_quota(root, tmp_path / "absent") is None


def test_available_cores_follow_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(machine, "affinity_cores", lambda: 8)
    cores = []
    for quota in (None, 2.5, 0.5, 20.0):
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        cores.append(devices.available_cores())
    assert cores == [8, 3, 1, 8]


def test_memory_of_this_machine():
    total, available = machine.memory()
    assert 2**28 < available <= total
