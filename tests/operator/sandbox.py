"""Runs a program as systemd would run it for a service, as far as that goes without systemd; as root, with the system's
own Python, in a mount namespace that is ours (unshare --mount).

Usage: sandbox.py FILE COMMAND...: FILE has JSON. "files": by path, content, owner and mode; "links": by path, target;
"bind": by path, a folder that appears there, of the user; "user": name, whose number is "uid", of the group too;
"members": who else is in the group; the rest are settings of systemd.exec(5): protect_system, read_write_paths,
runtime_directory, private_devices, protect_proc, protect_kernel_tunables, nofile, core, umask, capabilities,
no_new_privileges, and for sandbox_filter.py address_families, namespaces, system_calls and others.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
KEPT = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}
DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}

libc = ctypes.CDLL(None, use_errno=True)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def overlay(folder, path):
    """What is written to path from here on is seen by nobody else."""
    name = path.strip("/").replace("/", "-")
    places = [f"{folder}/{name}.{kind}" for kind in ("upper", "work")]
    for place in places:
        os.makedirs(place)
    mount("-t", "overlay", "-o", f"lowerdir={path},upperdir={places[0]},workdir={places[1]}", "none", path)


def make_machine(spec):
    """The user, its folders and files, and where fastmeta is installed."""
    over = f"{spec['folder']}/over"
    os.makedirs(over)
    mount("-t", "tmpfs", "none", over)
    for path in ("/etc", "/var", "/opt"):
        overlay(over, path)
    uid, user = spec["uid"], spec["user"]
    with open("/etc/passwd", "a") as passwd, open("/etc/group", "a") as group:
        passwd.write(f"{user}:x:{uid}:{uid}::/var/lib/neutron:/bin/false\n")
        group.write(f"{user}:x:{uid}:{','.join(spec['members'])}\n")
        passwd.writelines(
            f"{name}:x:{uid + n}:100::/:/bin/false\n" for n, name in enumerate(spec["members"], 1)
        )
    for path, source in spec["bind"].items():
        os.makedirs(path)
        os.chown(source, uid, uid)
        mount("--bind", source, path)
    for path, (content, owner, mode) in spec["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(content)
        os.chown(path, uid if owner == user else 0, uid)
        os.chmod(path, mode)
    for path, target in spec["links"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)


def mounts():
    """Where something is mounted, and how."""
    with open("/proc/self/mountinfo") as file:
        fields = [line.split() for line in file]
    return {field[4].encode().decode("unicode_escape"): field[5].split(",") for field in fields}


def make_read_only(path, options):
    flags = sum(flag for name, flag in KEPT.items() if name in options)
    if libc.mount(None, path.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, None) != 0:
        raise OSError(ctypes.get_errno(), path)


def protect_system(spec):
    writable = set(spec["read_write_paths"]) | set(spec["bind"])
    if spec["protect_system"] == "strict":
        for path in writable:
            if os.path.isdir(path) and path not in spec["bind"]:
                mount("--bind", path, path)
        for path, options in mounts().items():
            # systemd leaves these out, too: there are settings of their own for them.
            if path not in writable and not path.startswith(("/proc", "/sys", "/dev")):
                make_read_only(path, options)
    elif spec["protect_system"] == "full":
        for path in ("/usr", "/etc"):
            mount("--bind", path, path)
            make_read_only(path, mounts()[path])


def protect(spec):
    if spec["runtime_directory"]:
        path = f"/run/{spec['runtime_directory']}"
        mount("-t", "tmpfs", "-o", f"mode=700,uid={spec['uid']},gid={spec['uid']}", "none", path)
        spec["bind"][path] = path
    protect_system(spec)
    if spec["protect_proc"]:
        mount("-t", "proc", "-o", f"hidepid={spec['protect_proc']}", "proc", "/proc")
    if spec["protect_kernel_tunables"]:
        for path in ("/proc/sys", "/sys"):
            mount("--bind", path, path)
            make_read_only(path, mounts()[path])
    if spec["private_devices"]:
        mount("-t", "tmpfs", "-o", "mode=755,noexec", "none", "/dev")
        for name, minor in DEVICES.items():
            os.mknod(f"/dev/{name}", 0o666 | 0o020000, os.makedev(1, minor))
            os.chmod(f"/dev/{name}", 0o666)  # noqa: S103


def as_user(spec):
    """The command that gives up what the service is not to have."""
    capabilities = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in spec["capabilities"])
    user = [f"--reuid={spec['uid']}", f"--regid={spec['uid']}", "--clear-groups", "--pdeathsig", "KILL"]
    kept = "-all" + (f",{capabilities}" if capabilities else "")
    command = ["setpriv", *user, f"--bounding-set={kept}", f"--inh-caps={kept}"]
    if capabilities:
        command.append(f"--ambient-caps={capabilities}")
    return command + (["--no-new-privs"] if spec["no_new_privileges"] else [])


def main():
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    make_machine(spec)
    protect(spec)
    # systemd may raise it; we perhaps may not.
    nofile = min(spec["nofile"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    resource.setrlimit(resource.RLIMIT_CORE, (spec["core"], spec["core"]))
    os.umask(spec["umask"])
    os.chdir("/")
    command = [*as_user(spec), sys.executable, spec["filter"], json.dumps(spec["filtered"]), *sys.argv[2:]]
    os.execvp(command[0], command)  # noqa: S606


main()
