//! The jars of the Java runtime: which they are, where they come from, and that they are what they should be.
//!
//! **What is fetched is fixed, by version and SHA-256**: a jar cannot be checked any more once it runs, and so a mirror
//! need not be trusted. curl fetches: Maven would bring some hundred jars of its own to fetch four, and an HTTPS client in
//! this binary some thirty crates for one command; curl is everywhere and knows the user's proxy and certificates.
//!
//! Deliberately absent: reading of POM files and any choice of versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::runtime::tools;

/// Where jars come from, unless this variable names a mirror.
const REPOSITORY: &str = "https://repo1.maven.org/maven2";
const REPOSITORY_VARIABLE: &str = "REKINDLE_MAVEN_REPOSITORY";

/// One file of a Maven repository. The digests are those of the files on Maven Central, compared with the SHA-1 beside
/// each when they were written down here.
pub struct Jar {
    group: &'static str,
    /// Its name.
    pub artifact: &'static str,
    /// Its version.
    pub version: &'static str,
    sha256: &'static str,
}

/// The client and what it needs at run time; the client itself is the first.
pub const CLIENT_JARS: [Jar; 4] = [
    Jar {
        group: "com/amazonaws",
        artifact: "aws-lambda-java-runtime-interface-client",
        version: "2.9.0",
        sha256: "26568a5f63bf9e921567e77661be425650abc8972bae2aa0b7e99bab4e4239d9",
    },
    Jar {
        group: "com/amazonaws",
        artifact: "aws-lambda-java-core",
        version: "1.4.0",
        sha256: "575c24393cc1ad645e83e618956eabd89ffe8cc09efae2cb62bc6589154d68ed",
    },
    Jar {
        group: "com/amazonaws",
        artifact: "aws-lambda-java-serialization",
        version: "1.2.0",
        sha256: "1513c1f945a3213f916a4b2de1760c97b51d84d110f82bbbcf9cfac53d5651e7",
    },
    Jar {
        group: "software/amazon/awssdk",
        artifact: "utils-lite",
        version: "2.34.0",
        sha256: "efaf784f07ae526f0b5c89d71ef21cf16636131c47d44616e3df9bedc3f4f89a",
    },
];

/// The compiler for our own classes. This version runs on Java 11 and later.
pub const COMPILER: Jar = Jar {
    group: "org/eclipse/jdt",
    artifact: "ecj",
    version: "3.33.0",
    sha256: "f7686c4960cf70c2ebc5c500a73a8cfc04541b730c18f1c5c21329889b137f45",
};

impl Jar {
    /// The file's name, here and in the repository.
    pub fn file_name(&self) -> String {
        format!("{}-{}.jar", self.artifact, self.version)
    }

    /// Whether it lies in `dir`, unchanged.
    pub fn is_at(&self, dir: &Path) -> bool {
        std::fs::read(dir.join(self.file_name())).is_ok_and(|content| digest(&content) == self.sha256)
    }

    /// Fetches the jar into `dir` and compares it with the digest that is written down.
    ///
    /// # Errors
    ///
    /// If curl is missing or fails, or if the file is another one.
    pub fn fetch(&self, dir: &Path) -> Result<PathBuf> {
        let repository = std::env::var(REPOSITORY_VARIABLE).unwrap_or_else(|_| REPOSITORY.to_owned());
        let (group, artifact, version) = (self.group, self.artifact, self.version);
        let url = format!("{repository}/{group}/{artifact}/{version}/{}", self.file_name());
        let file = dir.join(self.file_name());
        let mut curl = Command::new("curl");
        curl.args(["--fail", "--silent", "--show-error", "--location", "--retry", "3", "--max-time", "300"]);
        curl.arg("--output").arg(&file).arg(&url);
        tools::finish(&mut curl).with_context(|| {
            format!("{url} (remedy: `sudo apt install curl`, or name a mirror in {REPOSITORY_VARIABLE})")
        })?;
        let found = digest(&std::fs::read(&file)?);
        ensure!(
            found == self.sha256,
            "{url} is not the file it should be: its SHA-256 is {found}, not {}",
            self.sha256
        );
        Ok(file)
    }
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_with_another_digest_is_not_the_jar() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(COMPILER.file_name()), "other").unwrap();
        assert!(!COMPILER.is_at(dir.path()));
    }
}
