//! `/bin/true` and `/bin/sleep` of a VM that has nothing of Debian's: sleeps for as
//! many seconds as its first argument says, or not at all.

fn main() {
    let seconds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    std::thread::sleep(std::time::Duration::from_secs(seconds));
}
