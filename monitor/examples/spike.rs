//! x
fn main() {
    tracing_subscriber::fmt().with_env_filter("leakwatch=debug").init();
    let mut c = leakwatch::config::model::Config::default();
    c.watch.probes = leakwatch::config::model::ProbeMode::Always;
    c.watch.stacks = leakwatch::config::model::StackMode::Always;
    let t = std::time::Instant::now();
    let mut s = leakwatch::source::Source::open(&c, |c| c.into()).unwrap();
    println!("open {:?}", t.elapsed());
    let held: Vec<_> = (0..5).map(|i| std::fs::File::create(format!("/tmp/spike{i}.log")).unwrap()).collect();
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut last = None;
    for _ in 0..3 {
        let o = s.look().unwrap();
        println!("look {:.2} ms, {} fds", o.figures.census_seconds * 1e3, o.figures.census_fds);
        last = Some(o);
    }
    let o = last.unwrap();
    let me = o.processes.iter().find(|p| p.id.pid == std::process::id()).unwrap();
    println!("{:?} {:?} {:?} {:?}", me.id, me.cmdline, me.cgroup, me.max_fds);
    if let leakwatch::source::model::FdTable::Full(f) = &me.fds { for f in f { println!("{f:?}"); } }
    println!("stacks {:x?}", o.stacks.iter().next());
    println!("{:?}", o.figures);
    for (k, v) in o.flows.unwrap() { println!("{k}: {:?} {:?}", v.fds.iter().map(|(k, f)| (*k, f.opened, f.closed)).collect::<Vec<_>>(), v.processes); }
    drop((held, a, b));
}
