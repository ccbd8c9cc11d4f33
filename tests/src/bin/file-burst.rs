//! Opens `--count` new files in `--dir`, holds them for `--hold` ms, closes and
//! removes them, `--times` times with `--hold` ms between. Says `ready` at the end.

use std::fs::File;

use leakwatch_tests::program::{Control, Flags, say};

fn main() -> std::io::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let count = flags.get("count", 5_000_usize);
    let dir = std::path::Path::new(flags.need("dir"));
    let hold = flags.millis("hold", 1_000);

    for _ in 0..flags.get("times", 1_usize) {
        let paths: Vec<_> = (0..count).map(|i| dir.join(format!("part-{i}.dat"))).collect();
        // Made one by one and open all at once: on a busy disk, making them takes so
        // long that the burst would be a rise.
        for path in &paths {
            File::create(path)?;
        }
        let open: Vec<File> = paths.iter().map(File::open).collect::<Result<_, _>>()?;
        say(format_args!("open {}", open.len()));
        std::thread::sleep(hold);
        drop(open);
        for path in paths {
            std::fs::remove_file(path)?;
        }
        std::thread::sleep(hold);
    }
    say("ready");
    control.idle()
}
