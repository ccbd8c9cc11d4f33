//! Programs that run in a language runtime: which, and what lets their own frames
//! be seen.

/// A language runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Language {
    /// CPython; its minor version, where the name of its file tells.
    Python(Option<u32>),
    /// Node.
    Node,
    /// A Java virtual machine.
    Java,
    /// Another one, by the name of its file.
    Other(String),
}

impl Language {
    /// By the names of the executable and of a library that only runtimes have.
    pub fn of(exe: &str, library: Option<&str>) -> Option<Self> {
        let exe = exe.rsplit('/').next().unwrap_or(exe);
        let library = library.unwrap_or("");
        if let Some(version) = exe.strip_prefix("python").or(library.strip_prefix("libpython")) {
            let minor = version
                .split('.')
                .nth(1)
                .map(|m| m.trim_end_matches(|c: char| !c.is_ascii_digit()));
            return Some(Self::Python(minor.and_then(|m| m.parse().ok())));
        }
        match exe {
            "node" | "nodejs" => return Some(Self::Node),
            "java" => return Some(Self::Java),
            _ if library.starts_with("libnode") => return Some(Self::Node),
            _ if library.starts_with("libjvm") => return Some(Self::Java),
            _ => {}
        }
        let known = ["ruby", "perl", "php", "lua", "guile", "beam.smp", "mono", "dotnet"];
        let is = |known: &str| {
            let version = exe.strip_prefix(known);
            version.is_some_and(|v| v.bytes().all(|b| !b.is_ascii_alphabetic()))
        };
        known.iter().any(|k| is(k)).then(|| Self::Other(exe.to_owned()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Python(_) => "Python",
            Self::Node => "Node",
            Self::Java => "the Java virtual machine",
            Self::Other(name) => name,
        }
    }

    /// Why its own frames are not seen, and what would show them.
    pub fn how_to_see(&self) -> String {
        match self {
            Self::Python(Some(minor)) if *minor < 12 => format!(
                "the program's own frames are those of Python 3.{minor}, which shows its native \
                 ones only: from Python 3.12 on, `PYTHONPERFSUPPORT=1` (or `-X perf`) shows them"
            ),
            Self::Python(_) => "the program's own frames are those of Python, which does not show \
                 them: start it with `PYTHONPERFSUPPORT=1` in its environment (or `-X perf`)"
                .to_owned(),
            Self::Node => "the program's own frames are those of Node, which does not show them: \
                 start it with `node --perf-basic-prof --interpreted-frames-native-stack`"
                .to_owned(),
            Self::Java => "the program's own frames are those of a Java virtual machine, which \
                 does not show them: start it with `-XX:+PreserveFramePointer`, and have it write \
                 a perf map with `jcmd PID Compiler.perfmap` (JDK 17 and later)"
                .to_owned(),
            Self::Other(name) => format!(
                "the program's own frames are those of {name}, which does not show them: only \
                 native ones are known"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_files() {
        for (exe, library, want) in [
            ("/usr/bin/python3.11", None, Some(Language::Python(Some(11)))),
            ("/usr/bin/python3", None, Some(Language::Python(None))),
            ("/opt/python3.13d", None, Some(Language::Python(Some(13)))),
            ("/usr/bin/app", Some("libpython3.12.so.1.0"), Some(Language::Python(Some(12)))),
            ("/usr/bin/node", None, Some(Language::Node)),
            ("/usr/bin/app", Some("libnode.so.108"), Some(Language::Node)),
            ("/usr/lib/jvm/17/bin/java", None, Some(Language::Java)),
            ("/usr/bin/jsvc", Some("libjvm.so"), Some(Language::Java)),
            ("/usr/bin/ruby3.1", None, Some(Language::Other("ruby3.1".into()))),
            ("/usr/bin/perl", None, Some(Language::Other("perl".into()))),
            ("/usr/sbin/nginx", None, None),
            ("/usr/bin/phpfoo", None, None),
        ] {
            assert_eq!(Language::of(exe, library), want, "{exe} {library:?}");
        }
    }

    #[test]
    fn each_says_how() {
        for (language, part) in [
            (Language::Python(Some(11)), "from Python 3.12 on"),
            (Language::Python(Some(13)), "PYTHONPERFSUPPORT=1"),
            (Language::Python(None), "PYTHONPERFSUPPORT=1"),
            (Language::Node, "--perf-basic-prof"),
            (Language::Java, "Compiler.perfmap"),
            (Language::Other("perl".into()), "those of perl"),
        ] {
            assert!(language.how_to_see().contains(part), "{language:?}");
        }
    }
}
