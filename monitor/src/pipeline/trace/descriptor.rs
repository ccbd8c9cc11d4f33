//! A descriptor as a trace tells it: what differs from when it was last told.

use serde::{Deserialize, Serialize};

use super::weight::Weigh;
use crate::source::model::{FdBirth, FdKind, FdSample, KernelStr, SocketState};

/// What is left out is as it was; of a new one, as in [`blank`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Descriptor {
    pub fd: u32,
    /// Nothing of what had the number before stays.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub new: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<FdKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nlink: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<KernelStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<SocketState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    birth: Option<FdBirth>,
}

/// What a new descriptor is as far as nothing else is told.
pub(super) fn blank(fd: u32) -> FdSample {
    FdSample {
        fd,
        file: 0,
        kind: FdKind::Other,
        device: 0,
        inode: 0,
        flags: 0,
        nlink: 1,
        position: 0,
        size: 0,
        disk_bytes: 0,
        path: KernelStr::from(""),
        socket: None,
        birth: None,
    }
}

impl Descriptor {
    /// What makes `now` of `before`.
    pub fn between(before: Option<&FdSample>, now: &FdSample) -> Self {
        // What it has no more cannot be told as a difference.
        let goes_on = |b: &&FdSample| {
            (b.socket.is_none() || now.socket.is_some())
                && (b.birth.is_none() || now.birth.is_some())
        };
        match before.filter(goes_on) {
            Some(before) => Self::difference(before, now),
            None => Self { new: true, ..Self::difference(&blank(now.fd), now) },
        }
    }

    fn difference(before: &FdSample, now: &FdSample) -> Self {
        fn other<T: PartialEq + Clone>(before: &T, now: &T) -> Option<T> {
            (before != now).then(|| now.clone())
        }
        Self {
            fd: now.fd,
            new: false,
            file: other(&before.file, &now.file),
            kind: other(&before.kind, &now.kind),
            device: other(&before.device, &now.device),
            inode: other(&before.inode, &now.inode),
            flags: other(&before.flags, &now.flags),
            nlink: other(&before.nlink, &now.nlink),
            position: other(&before.position, &now.position),
            size: other(&before.size, &now.size),
            disk_bytes: other(&before.disk_bytes, &now.disk_bytes),
            path: other(&before.path, &now.path),
            socket: now.socket.filter(|_| before.socket != now.socket),
            birth: now.birth.filter(|_| before.birth != now.birth),
        }
    }

    /// Bytes of a line that it takes at most, about.
    pub fn length(&self) -> usize {
        // A byte that is not UTF-8 is written as eight.
        400 + self.path.as_ref().map_or(0, |path| path.as_bytes().len() * 8)
    }

    /// Makes of `sample` what this tells.
    pub fn apply(self, sample: &mut FdSample) {
        fn set<T>(field: &mut T, told: Option<T>) {
            if let Some(told) = told {
                *field = told;
            }
        }
        // Every field is named, so that a new one is not forgotten here.
        let FdSample { fd, file, kind, device, inode, flags, nlink, position, .. } = sample;
        let FdSample { size, disk_bytes, path, socket, birth, .. } = sample;
        *fd = self.fd;
        set(file, self.file);
        set(kind, self.kind);
        set(device, self.device);
        set(inode, self.inode);
        set(flags, self.flags);
        set(nlink, self.nlink);
        set(position, self.position);
        set(size, self.size);
        set(disk_bytes, self.disk_bytes);
        set(path, self.path);
        if self.socket.is_some() {
            *socket = self.socket;
        }
        if self.birth.is_some() {
            *birth = self.birth;
        }
    }
}

/// What makes the table `now` of `before`, both sorted by number: descriptors that
/// are new or other, and numbers that are free.
pub(super) fn between(before: &[FdSample], now: &[FdSample]) -> (Vec<Descriptor>, Vec<u32>) {
    let (mut set, mut closed) = (Vec::new(), Vec::new());
    let mut before = before.iter().peekable();
    for sample in now {
        while let Some(gone) = before.next_if(|b| b.fd < sample.fd) {
            closed.push(gone.fd);
        }
        let old = before.next_if(|b| b.fd == sample.fd);
        if old != Some(sample) {
            set.push(Descriptor::between(old, sample));
        }
    }
    closed.extend(before.map(|gone| gone.fd));
    (set, closed)
}

/// Makes of `table` what is told, both sorted by number; keeps its weight.
///
/// # Errors
/// The numbers are not sorted, or one that is not new is not there.
pub(super) fn apply(
    table: &mut Vec<FdSample>,
    set: Vec<Descriptor>,
    closed: &[u32],
    weight: &mut usize,
) -> Result<(), String> {
    if !closed.is_sorted() || !set.is_sorted_by(|a, b| a.fd < b.fd) {
        return Err("the numbers of its descriptors are not sorted".to_owned());
    }
    if !closed.is_empty() {
        table.retain(|f| {
            let stays = closed.binary_search(&f.fd).is_err();
            *weight = weight.saturating_sub(if stays { 0 } else { f.weight() });
            stays
        });
    }
    let known = table.len();
    for told in set {
        let at = match table[..known].binary_search_by_key(&told.fd, |f| f.fd) {
            Ok(at) => {
                *weight = weight.saturating_sub(table[at].weight());
                if told.new {
                    table[at] = blank(told.fd);
                }
                at
            }
            Err(_) if told.new => {
                table.push(blank(told.fd));
                table.len() - 1
            }
            Err(_) => return Err(format!("descriptor {} has not been told of before", told.fd)),
        };
        told.apply(&mut table[at]);
        *weight += table[at].weight();
    }
    // Most often they go to the end, as they came there.
    let behind = |first: &FdSample| table[..known].last().is_none_or(|last| last.fd < first.fd);
    if !table.get(known).is_none_or(behind) {
        // Two sorted runs: cheap for a stable sort.
        table.sort_by_key(|f| f.fd);
    }
    Ok(())
}
