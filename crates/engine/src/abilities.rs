//! What the engine needs of the kernel, asked once.

use std::fs::File;

use linux::memory::{Query, page, scan};

/// One ability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// What it is.
    pub subject: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// What was found.
    pub detail: String,
    /// What to do if it is missing.
    pub remedy: &'static str,
}

/// Asks for each.
#[must_use]
pub fn probe() -> Vec<Ability> {
    vec![processor(), page_scan(), huge_pages(), tracing()]
}

fn processor() -> Ability {
    let flags = crate::checkpoint::cpu_flags().unwrap_or_default();
    let present = flags.iter().any(|flag| flag == "xsave");
    Ability {
        subject: "processor state",
        present,
        detail: if present { "XSAVE".to_owned() } else { "no XSAVE".to_owned() },
        remedy: "SnapStart needs an x86-64 processor with XSAVE; functions run without it",
    }
}

fn page_scan() -> Ability {
    let asked = File::open("/proc/self/pagemap").and_then(|pagemap| {
        scan(&pagemap, 1 << 20, 1 << 21, Query { any: page::PRESENT, ..Query::default() })
    });
    Ability {
        subject: "page map scan",
        present: asked.is_ok(),
        detail: asked.map_or_else(|error| error.to_string(), |_| "PAGEMAP_SCAN".to_owned()),
        remedy: "SnapStart needs Linux 6.7 or newer",
    }
}

fn huge_pages() -> Ability {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let present = !text.is_empty() && !text.contains("[never]");
    Ability {
        subject: "huge pages",
        present,
        detail: if text.is_empty() { "none".to_owned() } else { text.trim().to_owned() },
        remedy: "large heaps restore slowly; as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    }
}

fn tracing() -> Ability {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let present = scope.trim() != "3";
    Ability {
        subject: "process tracing",
        present,
        detail: if scope.is_empty() {
            "unrestricted".to_owned()
        } else {
            format!("ptrace_scope {}", scope.trim())
        },
        remedy: "checkpoints need ptrace; as root: sysctl kernel.yama.ptrace_scope=1 (after a boot without 3)",
    }
}
