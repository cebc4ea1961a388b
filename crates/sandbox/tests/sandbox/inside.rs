//! What function code finds inside: who it is, what it sees, what it can write, its clocks and its network.

use super::*;

pub fn identity_of_function_code(bench: &mut Bench) {
    let text = bench.output("id; echo $$; hostname; pwd; umask; echo $MARK; grep -E '^(Cap|NoNewPrivs|Sig|Shd)' /proc/self/status; cat /proc/self/sessionid >/dev/null; env | wc -l");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("uid=993(sbx_user1051) gid=990(sbx_user1051) groups=990(sbx_user1051)"),
        "{text}"
    );
    assert_eq!(lines[1..6], ["2", "sandbox-1", "/var/task", "0022", "a value"]);
    for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
        assert!(text.contains(&format!("Cap{set}:\t0000000000000000")), "{text}");
    }
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    for set in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn"] {
        assert!(text.contains(&format!("{set}:\t0000000000000000")), "{set} in {text}");
    }
}

pub fn nothing_of_the_host_is_visible(bench: &mut Bench) {
    let secret = bench.directory.join("state");
    let script = format!(
        "ls /; echo -; ls -d /root /home /work /srv /boot /sys /run /var/lib {} 2>/dev/null; echo -; ls /etc; echo -; \
         ls -d /proc/[0-9]*; echo -; cat /proc/kcore /proc/keys /proc/kmsg /proc/timer_list /proc/interrupts \
         /proc/kallsyms /proc/modules 2>/dev/null | wc -c; ls /proc/acpi /proc/scsi 2>/dev/null | grep -v :",
        secret.display()
    );
    let text = bench.output(&script);
    let parts: Vec<&str> = text.split("-\n").collect();
    let allowed =
        ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin", "tmp", "usr", "var"];
    assert!(parts[0].lines().all(|name| allowed.contains(&name)), "{text}");
    assert_eq!(parts[1], "", "{text}");
    assert!(!parts[2].contains("shadow") && !parts[2].contains("rekindle"), "{text}");
    assert!(parts[3].lines().all(|process| process != "/proc/1"), "{text}");
    assert_eq!(parts[4].trim(), "0", "{text}");
}

pub fn nothing_but_tmp_and_shm_is_writable(bench: &mut Bench) {
    let text = bench.output(
        "for d in / /usr /usr/bin /etc /dev /var /var/task /opt /var/runtime /proc /proc/sys/kernel; do \
           (echo x > $d/probe) 2>/dev/null && echo writable $d; done; \
         echo x > /tmp/probe && echo x > /dev/shm/probe && echo fine; \
         cp /bin/sh /tmp/sh && /tmp/sh -c 'echo runs'; \
         chmod u+s /tmp/sh; mount -t tmpfs none /tmp 2>/dev/null && echo mounted; \
         mount -o remount,rw / 2>/dev/null && echo remounted; \
         (echo 1 > /proc/sys/kernel/hostname) 2>/dev/null && echo named; \
         ls -ld /tmp | cut -c1-10",
    );
    assert_eq!(text, "fine\nruns\ndrwxrwxrwt\n");
}

pub fn devices_work_and_are_few(bench: &mut Bench) {
    let text = bench.output(
        "ls /dev | tr '\\n' ' '; echo; head -c 4 /dev/zero | od -An -tx1; echo gone > /dev/null; \
         head -c 8 /dev/urandom | wc -c; (echo > /dev/full) 2>/dev/null || echo full; wc -c < /dev/sysgenid; \
         od -An -tx4 /dev/sysgenid; echo out > /dev/stdout; (echo x > /dev/sysgenid) 2>/dev/null || echo kept; \
         chmod 777 /dev/sysgenid 2>/dev/null || echo kept; chmod 777 /dev/null 2>/dev/null || echo kept",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0].trim(), "fd full null random shm stderr stdin stdout sysgenid urandom zero");
    assert_eq!(lines[1..5], [" 00 00 00 00", "8", "full", "4"]);
    assert_eq!(lines[6..], ["out", "kept", "kept", "kept"], "{text}");
    let other = bench.output("od -An -tx4 /dev/sysgenid");
    assert_ne!(other.trim(), lines[5].trim(), "two sandboxes have the same generation");
}

pub fn init_cannot_be_touched_from_inside(bench: &mut Bench) {
    let mut environment = bench.shell(
        "for s in KILL STOP TERM INT SEGV HUP USR1 CHLD 34; do kill -$s 1 2>/dev/null && echo sent $s; done; \
         kill -KILL -1 2>/dev/null; cat /proc/1/environ /proc/1/maps /proc/1/mem 2>/dev/null | wc -c; \
         ls -l /proc/1/root /proc/1/fd 2>/dev/null | wc -l; read line < /dev/null; echo done; exec sleep 60",
    );
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "done") {
        lines.push(environment.line());
    }
    // With one user for everything the kernel takes the signals, and init, as pid 1, does not notice.
    if bench.abilities.privilege != Privilege::Full {
        lines.retain(|line| !line.starts_with("sent"));
    }
    assert_eq!(lines, ["0", "0", "done"]);
    assert!(environment.sandbox.on_message().is_none(), "init is gone");
    assert_eq!(environment.sandbox.more_connections(1).unwrap().len(), 1, "init does not answer");
    environment.sandbox.kill(&mut bench.reaper);
}

pub fn code_layers_and_runtime_are_mounted(bench: &mut Bench) {
    let source = bench.directory.join("runtime");
    let layers = bench.directory.join("layers");
    for (directory, file) in
        [(&source, "bootstrap"), (&layers, "layer"), (&bench.directory.join("task"), "code")]
    {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join(file), file).unwrap();
    }
    let sandbox = bench.start_with(vec![RootBind { source, target: "/var/runtime".into() }]);
    let lease = Lease { opt_dir: Some(layers), ..bench.lease() };
    let environment = bench.shell_in(
        sandbox,
        &lease,
        "cat /var/runtime/bootstrap /opt/layer /var/task/code code; for f in /var/runtime /opt /var/task; do \
         touch $f/x 2>/dev/null && echo writable $f; done",
    );
    let (exit, text) = bench.output_of(environment);
    assert_eq!((exit, text.as_str()), (Exit::Status(1), "bootstraplayercodecode"));
}

pub fn tmp_has_the_size_of_the_lease(bench: &mut Bench) {
    for tmp_mib in [512, 600] {
        let sandbox = bench.start();
        let lease = Lease { tmp_mib, ..bench.lease() };
        let environment = bench.shell_in(
            sandbox,
            &lease,
            "df -m /tmp | tail -1 | awk '{print $2}'; head -c 700M /dev/zero > /tmp/big 2>/dev/null || echo full; \
             wc -c < /tmp/big",
        );
        let (_, text) = bench.output_of(environment);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], [tmp_mib.to_string().as_str(), "full"]);
        assert_eq!(lines[2].parse::<u64>().unwrap() >> 20, u64::from(tmp_mib));
    }
}

pub fn tmp_starts_with_the_files_of_a_snapshot(bench: &mut Bench) {
    if !bench.abilities.overlay {
        return eprintln!("*** not run: no overlayfs");
    }
    let lower = bench.directory.join("lower");
    std::fs::create_dir_all(lower.join("models/deep")).unwrap();
    std::fs::write(lower.join("models/deep/weights"), "weights").unwrap();
    let user = rustix::fs::Uid::from_raw(if bench.abilities.privilege == Privilege::Full { 993 } else { 0 });
    for path in ["models/deep/weights", "models/deep", "models"] {
        rustix::fs::chown(lower.join(path), Some(user), None).unwrap();
    }
    for _ in 0..2 {
        let sandbox = bench.start();
        let lease = Lease { tmp_mib: 64, tmp_lower_dir: Some(lower.clone()), ..bench.lease() };
        let environment = bench.shell_in(
            sandbox,
            &lease,
            "ls /tmp; cat /tmp/models/deep/weights; echo; echo more >> /tmp/models/deep/weights; \
             cat /tmp/models/deep/weights; echo new > /tmp/new; mv /tmp/models /tmp/renamed; ls /tmp; rm -r /tmp/renamed; \
             ls /tmp; df -m /tmp | tail -1 | awk '{print $2}'; ls -ld /tmp | cut -c1-10; \
             head -c 80M /dev/zero > /tmp/big 2>/dev/null || echo full",
        );
        let (_, text) = bench.output_of(environment);
        let expected = "models\nweights\nweightsmore\nnew\nrenamed\nnew\n64\ndrwxrwxrwt\nfull\n";
        assert_eq!(text, expected);
    }
    assert_eq!(std::fs::read_to_string(lower.join("models/deep/weights")).unwrap(), "weights");
}

pub fn clocks_have_the_offsets_of_the_lease(bench: &mut Bench) {
    if !bench.abilities.time_namespaces {
        return eprintln!("*** not run: no time namespaces");
    }
    let day_ns = 86_400_000_000_000;
    let offsets = ClockOffsets { monotonic_ns: day_ns + 5, boottime_ns: 2 * day_ns };
    let host_s: f64 =
        std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let mut sandbox = bench.start();
    let grant = sandbox.lease(&Lease { clock: Some(offsets), ..bench.lease() }).unwrap();
    assert!(grant.time_namespace.is_some());
    let ends = sandbox.take_server_ends().unwrap();
    let running = sandbox.exec(program(&["/bin/sh", "-c", "cut -d' ' -f1 /proc/uptime"])).unwrap();
    let (_, text) = bench.output_of(Environment { sandbox, ends, running: Some(running) });
    let difference_s = text.trim().parse::<f64>().unwrap() - host_s;
    assert!((difference_s - 172_800.0).abs() < 10.0, "boot time moved by {difference_s} s");
}

pub fn only_loopback_and_the_runtime_api(bench: &mut Bench) {
    let mut sandbox = bench.start();
    let more = sandbox.more_connections(3).unwrap();
    assert_eq!(more.len(), 3);
    let ends = sandbox.take_environment_ends().unwrap();
    let server = sandbox.take_server_ends().unwrap();
    for (server, client) in more.iter().map(|(a, b)| (a, b)).chain([(&server.connection, &ends.connection)]) {
        rustix::io::write(client, b"ping").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::read(server, &mut bytes).unwrap(), 4);
        rustix::io::write(server, b"pong").unwrap();
        assert_eq!(rustix::io::read(client, &mut bytes).unwrap(), 4);
    }
    let peer =
        std::net::SocketAddr::try_from(rustix::net::getpeername(&ends.connection).unwrap().unwrap()).unwrap();
    assert_eq!(peer.to_string(), "127.0.0.1:9001");
    sandbox.kill(&mut bench.reaper);

    let environment = bench.shell("grep -c : /proc/net/dev; awk '{print $2}' /proc/net/tcp; exec sleep 60");
    let listing: Vec<String> = (0..3).map(|_| environment.line()).collect();
    assert_eq!(listing, ["1", "local_address", "0100007F:2329"]);
    environment.sandbox.kill(&mut bench.reaper);
}

pub fn limits_of_a_process_are_those_of_lambda(bench: &mut Bench) {
    let text =
        bench.output("ulimit -n; ulimit -c; ulimit -s; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0");
    // `ls` itself holds one descriptor more.
    assert_eq!(text, "1024\n0\n8192\n4\n/dev/null\n");
}
