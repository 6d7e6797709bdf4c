//! The rules.

/// A build check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A stage's name with capitals.
    StageNameCasing,
    /// `FROM … as …`.
    FromAsCasing,
    /// An empty line in the middle of an instruction.
    NoEmptyContinuation,
    /// Keywords in different case.
    ConsistentInstructionCasing,
    /// Two stages of one name.
    DuplicateStageName,
    /// A stage named like something that exists.
    ReservedStageName,
    /// A command for a shell, which does not pass signals on.
    JsonArgsRecommended,
    /// `MAINTAINER`.
    MaintainerDeprecated,
    /// A variable in `FROM` without its `ARG`.
    UndefinedArgInFrom,
    /// A relative `WORKDIR` whose base nobody has set.
    WorkdirRelativePath,
    /// A variable that is not set.
    UndefinedVar,
    /// Several instructions of which only the last one counts.
    MultipleInstructionsDisallowed,
    /// `ENV key value`.
    LegacyKeyValueFormat,
    /// A base image of another platform.
    InvalidBaseImagePlatform,
    /// `FROM --platform=$TARGETPLATFORM`.
    RedundantTargetPlatform,
    /// A password in `ARG` or `ENV`.
    SecretsUsedInArgOrEnv,
    /// An `ARG` whose default makes no image name.
    InvalidDefaultArgInFrom,
    /// `FROM --platform=linux/amd64`.
    FromPlatformFlagConstDisallowed,
    /// A file that the ignore file leaves out.
    CopyIgnoredFile,
    /// A comment before `FROM` or `ARG` that is no description.
    InvalidDefinitionDescription,
    /// A protocol in capitals.
    ExposeProtoCasing,
    /// An address or a host's port in `EXPOSE`.
    ExposeInvalidFormat,
}

impl Rule {
    /// The rule's name, as `check=skip=` takes it.
    pub fn name(self) -> &'static str {
        self.about().0
    }

    /// What the rule is about.
    pub fn description(self) -> &'static str {
        self.about().1
    }

    /// Where it is explained.
    pub fn url(self) -> String {
        let mut slug = String::new();
        let name = self.name().as_bytes();
        for (at, &letter) in name.iter().enumerate() {
            let next_is_small = name.get(at + 1).is_some_and(u8::is_ascii_lowercase);
            let after_small = at > 0 && name[at - 1].is_ascii_lowercase();
            // `JSONArgs` is two words.
            if at > 0 && letter.is_ascii_uppercase() && (next_is_small || after_small) {
                slug.push('-');
            }
            slug.push(char::from(letter.to_ascii_lowercase()));
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{slug}/")
    }

    /// Whether it must be asked for: `check=experimental=`.
    pub fn is_experimental(self) -> bool {
        matches!(self, Rule::CopyIgnoredFile | Rule::InvalidDefinitionDescription)
    }

    fn about(self) -> (&'static str, &'static str) {
        match self {
            Rule::StageNameCasing => ("StageNameCasing", "Stage names should be lowercase"),
            Rule::FromAsCasing => {
                ("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword")
            }
            Rule::NoEmptyContinuation => {
                ("NoEmptyContinuation", "Empty continuation lines will become errors in a future release")
            }
            Rule::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Rule::DuplicateStageName => ("DuplicateStageName", "Stage names should be unique"),
            Rule::ReservedStageName => {
                ("ReservedStageName", "Reserved words should not be used as stage names")
            }
            Rule::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            ),
            Rule::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Rule::UndefinedArgInFrom => ("UndefinedArgInFrom", "FROM command must use declared ARGs"),
            Rule::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results \
                 if the base image changes",
            ),
            Rule::UndefinedVar => ("UndefinedVar", "Variables should be defined before their use"),
            Rule::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Rule::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Rule::InvalidBaseImagePlatform => {
                ("InvalidBaseImagePlatform", "Base image platform does not match expected target platform")
            }
            Rule::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            Rule::SecretsUsedInArgOrEnv => {
                ("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands")
            }
            Rule::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Rule::FromPlatformFlagConstDisallowed => {
                ("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value")
            }
            Rule::CopyIgnoredFile => {
                ("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore")
            }
            Rule::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If \
                 this is not intended to be a description comment, add an empty line or comment between the \
                 instruction and the comment.",
            ),
            Rule::ExposeProtoCasing => {
                ("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase")
            }
            Rule::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error \
                 in a future release",
            ),
        }
    }
}
