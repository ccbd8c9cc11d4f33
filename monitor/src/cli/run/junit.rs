//! The report as JUnit XML: one test case for each finding, and for each sort of which
//! there is none. Valid by the schema of Ant's reports and by that of Jenkins' xUnit
//! plugin: what one of them lacks is left out, what one demands is there.

use std::fmt::Write;

use super::findings::{Finding, Report, What};
use super::report::sentence;

/// For CI systems that show tests.
pub(super) fn junit(report: &Report) -> String {
    let (mut failures, mut skipped, mut cases) = (0, 0, Vec::new());
    for what in What::ALL {
        let of_it: Vec<&Finding> = report.findings.iter().filter(|f| f.what == what).collect();
        if of_it.is_empty() {
            cases.push(case(what, &format!("no {}", what.title()), None));
        }
        for finding in of_it {
            let said = sentence(finding);
            let (result, count) = if finding.leak {
                (format!("<failure type=\"{}\" message=\"{}\"/>", what.name(), xml(&said)), 1)
            } else {
                skipped += 1;
                (format!("<skipped message=\"{}\"/>", xml(&said)), 0)
            };
            failures += count;
            cases.push(case(what, &finding.subject(), Some(&result)));
        }
    }
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let host = rustix::system::uname();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "  <testsuite id=\"0\" package=\"leakwatch\" name=\"{}\" timestamp=\"{}\" hostname=\"{}\" \
         tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\">",
        xml(&format!("leakwatch run {}", report.command.join(" "))),
        report.started.strftime("%Y-%m-%dT%H:%M:%S"),
        xml(&crate::text::printable(host.nodename().to_bytes())),
        cases.len(),
        report.seconds,
    );
    let _ = writeln!(
        out,
        "    <properties>\n      <property name=\"status\" value=\"{}\"/>\n      \
         <property name=\"known\" value=\"{}\"/>\n    </properties>",
        report.status, report.known
    );
    out.extend(cases);
    let _ = writeln!(
        out,
        "    <system-out>{}</system-out>\n    <system-err/>\n  </testsuite>\n</testsuites>",
        xml(&report.blind.iter().map(|b| format!("not seen: {b}\n")).collect::<String>())
    );
    out
}

fn case(what: What, name: &str, result: Option<&str>) -> String {
    let open = format!(
        "    <testcase classname=\"leakwatch.{}\" name=\"{}\" time=\"0\"",
        what.name(),
        xml(name)
    );
    match result {
        Some(result) => format!("{open}>\n      {result}\n    </testcase>\n"),
        None => format!("{open}/>\n"),
    }
}

/// Text that may stand in an attribute or an element. What is no character of XML 1.0
/// becomes U+FFFD.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => {
                out.push(c);
            }
            _ => out.push('\u{fffd}'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_always_xml() {
        for (given, want) in [
            ("a<b>&\"c\"", "a&lt;b&gt;&amp;&quot;c&quot;"),
            ("\u{1}\u{ffff}\u{fffe}\u{0}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("höflich\n", "höflich\n"),
        ] {
            assert_eq!(xml(given), want);
        }
    }
}
