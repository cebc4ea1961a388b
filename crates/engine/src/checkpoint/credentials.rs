//! Who a process acts as, from `/proc/PID/status`.

use super::fields::Fields;
use crate::image::Credentials;

/// Reads everything but the secure bits, which only the process itself can ask for.
pub fn read(status: &Fields) -> Credentials {
    let numbers = |name| status.words(name).filter_map(|word| word.parse().ok()).collect();
    let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    Credentials {
        users: numbers("Uid"),
        groups: numbers("Gid"),
        supplementary: numbers("Groups"),
        capabilities: capabilities.iter().map(|name| status.number(name, 16)).collect(),
        no_new_privileges: status.number("NoNewPrivs", 10) == 1,
        secure_bits: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_groups_and_capabilities_are_read_in_order() {
        let status = Fields {
            text: "Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapInh:\t0\nCapPrm:\t1\nCapEff:\t2\n\
                   CapBnd:\t1ff\nCapAmb:\t4\nNoNewPrivs:\t1\n"
                .to_owned(),
        };
        let read = read(&status);
        assert_eq!((read.users, read.groups), (vec![1, 2, 3, 4], vec![5, 6, 7, 8]));
        assert_eq!((read.supplementary, read.capabilities), (vec![9, 10], vec![0, 1, 2, 0x1ff, 4]));
        assert!(read.no_new_privileges);
    }
}
