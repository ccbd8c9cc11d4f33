//! Symbol files that nobody would write in good faith: an error on that frame,
//! bounded time and memory, and nothing else disturbed.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leakwatch::detection::verdict::Leak;
use leakwatch_tests::agent::binary;
use leakwatch_tests::component::{need_program, need_root};
use leakwatch_tests::fixture::{line, line_in_c, put, put_forgets};
use leakwatch_tests::procfs::state;
use leakwatch_tests::wait::wait_until;
use serde_json::Value;

use super::scene::{LIMIT, Scene, of_program, opener};

/// Where a section of a file lies: offset and size.
fn section(path: &Path, name: &str) -> (u64, u64) {
    let said = Command::new("readelf").args(["-SW"]).arg(path).output().expect("binutils");
    let said = String::from_utf8(said.stdout).expect("text");
    let row = said.lines().find(|l| l.split_whitespace().any(|w| w == name)).expect("it is there");
    // [NR] NAME TYPE ADDRESS OFFSET SIZE
    let after = row.split_once(name).expect("it is there").1;
    let words: Vec<&str> = after.split_whitespace().collect();
    let hex = |w: &str| u64::from_str_radix(w, 16).expect("hexadecimal");
    (hex(words[2]), hex(words[3]))
}

#[test]
fn a_hostile_file_costs_its_own_names_and_no_others() {
    if need_root().is_none() || need_program("objcopy").is_none() {
        return;
    }
    let mut scene = Scene::set();
    let dir = scene.dir();

    // 2 GiB, of which all but the program is a hole.
    let large = put(&dir, "large");
    let file = OpenOptions::new().write(true).open(&large).expect("it is ours");
    file.set_len(2 << 30).expect("holes cost nothing");
    drop(file);
    scene.start("large", large);

    // What debuggers read is noise; the symbol table is whole.
    let garbage = put(&dir, "garbage");
    let file = OpenOptions::new().write(true).open(&garbage).expect("it is ours");
    for name in [".debug_info", ".debug_line", ".debug_abbrev"] {
        let (offset, size) = section(&garbage, name);
        let noise: Vec<u8> =
            (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        file.write_all_at(&noise, offset).expect("it is ours");
    }
    drop(file);
    scene.start("garbage", garbage);

    // What debuggers read is compressed, a tebibyte of it by its own account.
    let bomb = put(&dir, "bomb");
    let packed = Command::new("objcopy").arg("--compress-debug-sections=zlib").arg(&bomb).status();
    assert!(packed.expect("binutils").success());
    let (offset, _) = section(&bomb, ".debug_info");
    let file = OpenOptions::new().write(true).open(&bomb).expect("it is ours");
    // `ch_size` of `Elf64_Chdr`
    file.write_all_at(&(1_u64 << 40).to_le_bytes(), offset + 8).expect("it is ours");
    drop(file);
    scene.start("bomb", bomb);

    // The headers of its sections lie past its end.
    let truncated = put(&dir, "truncated");
    let (text, size) = section(&truncated, ".text");
    let (data, _) = section(&truncated, ".comment");
    let file = OpenOptions::new().write(true).open(&truncated).expect("it is ours");
    file.set_len(data.max(text + size)).expect("it is ours");
    drop(file);
    scene.start("truncated", truncated);

    scene.start("beside", put(&dir, "beside"));
    scene.go_all();

    let leak = scene.looked_up("beside");
    assert_eq!(opener(&leak).line, Some(line("OPENS")), "{leak:#?}");
    let leak = scene.looked_up("large");
    let note = leak.opener_note.as_deref().unwrap_or("");
    assert!(note.contains("it has 2.0 GiB; more than 1.0 GiB is not read"), "{leak:#?}");
    assert!(opener(&leak).function.starts_with("0x"), "{leak:#?}");
    for name in ["garbage", "bomb"] {
        let leak = scene.looked_up(name);
        assert!(of_program(&leak)[0].function.starts_with("opener_fixture::"), "{leak:#?}");
    }
    let leak = scene.looked_up("truncated");
    assert!(opener(&leak).function.starts_with("0x"), "{leak:#?}");
    assert!(leak.opener_note.is_some(), "{leak:#?}");
    assert!(!scene.log().contains("panicked"), "{}", scene.log());
}

/// Has the confined reader read a file: what it answers, or how it ended.
fn read(file: &Path, address: &str) -> Result<Value, String> {
    let begun = Instant::now();
    let output = Command::new(binary())
        .args(["read-symbols", "--virtual", address])
        .stdin(File::open(file).expect("it is ours"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .output()
        .expect("it starts");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    serde_json::from_slice(&output.stdout).map_err(|_| output.status.to_string())
}

#[test]
fn hostile_call_frame_information_costs_its_own_callers_and_no_others() {
    if need_root().is_none() {
        return;
    }
    let mut scene = Scene::set();
    let dir = scene.dir();

    // 2 GiB, of which all but the program is a hole.
    let large = put_forgets(&dir, "cfilarge", true);
    let file = OpenOptions::new().write(true).open(&large).expect("it is ours");
    file.set_len(2 << 30).expect("holes cost nothing");
    drop(file);
    scene.start("cfilarge", large);

    // Noise, behind an index that is whole; and the other way round.
    for (name, spoiled) in [("cfinoise", ".eh_frame"), ("cfiindex", ".eh_frame_hdr")] {
        let program = put_forgets(&dir, name, true);
        let (offset, size) = section(&program, spoiled);
        let file = OpenOptions::new().write(true).open(&program).expect("it is ours");
        let noise: Vec<u8> =
            (4..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        file.write_all_at(&noise, offset + 4).expect("it is ours");
        drop(file);
        scene.start(name, program);
    }

    // It says of each function, in words of its own, that it was called by itself: the
    // place of the frame is where the stack pointer is, wherever that may be.
    let endless = put_forgets(&dir, "cfiendless", true);
    let (offset, size) = section(&endless, ".eh_frame");
    let mut bytes = fs::read(&endless).expect("it is ours");
    let frames = &mut bytes[offset as usize..(offset + size) as usize];
    // DW_CFA_def_cfa rsp+8, with which every function begins, becomes rsp+0.
    let begins = [0x0c, 0x07, 0x08];
    let at = frames.windows(3).position(|w| w == begins).expect("the first description has it");
    frames[at + 2] = 0;
    leakwatch_tests::install::write(&endless, &bytes);
    scene.start("cfiendless", endless);

    scene.start("forgets", put_forgets(&dir, "forgets", true));
    scene.go_all();
    let leak = wait_until("the one beside them to be named", LIMIT, || {
        let named = |l: &Leak| l.opener.iter().any(|f| f.function == "open_part");
        scene.leak("forgets").filter(named)
    });
    assert_eq!(opener(&leak).line, Some(line_in_c("OPENS")), "{leak:#?}");
    for name in ["cfilarge", "cfinoise", "cfiindex", "cfiendless"] {
        // Whatever comes of it: an answer, and none that names who is not there.
        let leak = scene.looked_up(name);
        let ours = ["open_part", "load_index", "refresh", "main"];
        let true_to_life = |f: &&leakwatch::detection::verdict::Frame| {
            f.function.starts_with("0x") || ours.contains(&f.function.as_str())
        };
        assert!(of_program(&leak).iter().all(true_to_life), "{leak:#?}");
    }
    assert!(!scene.log().contains("panicked"), "{}", scene.log());
}

#[test]
fn the_reader_can_do_nothing_but_read_and_answer() {
    if need_root().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = File::open(put(dir.path(), "whole")).expect("it is ours");
    // An answer that no pipe holds: it waits for us in the midst of it.
    let mut reader = Command::new(binary())
        .arg("read-symbols")
        .args((0..4_000).map(|i| format!("{:x}", 0x20_000 + i)))
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let proc = format!("/proc/{}", reader.id());
    let writes =
        || fs::read_to_string(format!("{proc}/syscall")).ok()?.starts_with("1 ").then_some(());
    wait_until("the reader to answer", LIMIT, || {
        // The number of write(2) is another one elsewhere; asleep it can be in nothing else.
        if cfg!(target_arch = "x86_64") {
            writes()
        } else {
            (state(reader.id()) == Some('S')).then_some(())
        }
    });
    let status = fs::read_to_string(format!("{proc}/status")).expect("it waits");
    let line = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("it is there");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:"] {
        assert_eq!(u64::from_str_radix(&line(set), 16), Ok(0), "{status}");
    }
    assert_eq!((&*line("NoNewPrivs:"), &*line("Groups:")), ("1", ""), "{status}");
    assert_eq!(line("Uid:"), "65534 65534 65534 65534", "{status}");
    let limits = fs::read_to_string(format!("{proc}/limits")).expect("it waits");
    for (name, most) in [("Max open files", "4"), ("Max cpu time", "10"), ("Max file size", "0")] {
        let row = limits.lines().find_map(|l| l.strip_prefix(name)).expect("it is there");
        assert_eq!(row.split_whitespace().next(), Some(most), "{limits}");
    }
    // The standard streams: the file is done with.
    assert_eq!(fs::read_dir(format!("{proc}/fd")).expect("it waits").count(), 3);
    let mut answer = String::new();
    reader.stdout.take().expect("it is piped").read_to_string(&mut answer).expect("text");
    assert!(reader.wait().expect("it is ours").success());
    assert!(answer.starts_with("{\"read\":") && answer.ends_with("}\n"), "{answer:.80}");
}

#[test]
fn a_file_that_is_cut_off_or_flipped_anywhere_is_an_answer_in_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = put(dir.path(), "whole");
    let bytes = fs::read(&whole).expect("it is ours");
    let symbol = Command::new("nm").arg("-C").arg(&whole).output().expect("binutils");
    let symbol = String::from_utf8_lossy(&symbol.stdout).into_owned();
    let symbol = symbol.lines().find(|l| l.ends_with("opener_fixture::pool::check_out"));
    let address = symbol.expect("it is there").split(' ').next().expect("an address").to_owned();
    let good = read(&whole, &address).expect("it is whole");
    assert_eq!(
        good["read"]["places"][0]["calls"]
            .as_array()
            .and_then(|c| c.last())
            .map(|c| &c["function"]),
        Some(&Value::from("opener_fixture::pool::check_out")),
        "{good}"
    );

    let part = dir.path().join("part");
    let mut answered = 0;
    // Dense where the headers are, then throughout.
    let places = (0..64).map(|i| i * 8).chain((1..32).map(|i| bytes.len() / 32 * i));
    for at in places.clone() {
        fs::write(&part, &bytes[..at]).expect("it is ours");
        answered += usize::from(read(&part, &address).is_ok());
    }
    for at in places {
        let mut flipped = bytes.clone();
        for byte in flipped.iter_mut().skip(at).take(8) {
            *byte ^= 0xff;
        }
        fs::write(&part, &flipped).expect("it is ours");
        answered += usize::from(read(&part, &address).is_ok());
    }
    // Nearly all are an answer in words; one that crashes the reader is none.
    assert!(answered >= 150, "{answered} of 190");
}
