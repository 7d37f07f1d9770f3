//! What a record says of a model and of a subject.

use super::{Accuracy, Arm, Model, Outcome, Protocol, Record, SCHEMA, Subject, Test, Tool, now};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::role::{LayerRole, Role};
use crate::machine::Environment;
use crate::words::counted;
use jiff::Timestamp;
use serde::Deserialize;
use std::fmt;
use std::path::Path;
use toml::Spanned;

impl Model {
    /// Describes an opened checkpoint whose [`model_hash`](crate::verify::model_hash) is `hash`.
    pub fn describe(checkpoint: &Checkpoint, hash: String) -> Self {
        let provenance = &checkpoint.provenance;
        let weights = checkpoint
            .tensors()
            .iter()
            .filter(|t| t.role.is_some() && !matches!(t.role, Some(Role::Layer(_, LayerRole::Scale(_)))));
        Self {
            id: Self::id_of(checkpoint),
            name: provenance.name.clone(),
            family: format!("{}, {}", provenance.family, provenance.scale_rule),
            dialect: provenance.dialect.clone(),
            hash,
            config: checkpoint.config.clone(),
            params: weights.map(|t| t.shape.iter().product::<usize>() as u64).sum(),
            linear_params: checkpoint.config.linear_params(),
            file_bytes: checkpoint.tensors().iter().map(|t| t.bytes).sum(),
            post_training: provenance.post_training,
        }
    }

    /// With a number behind its name where one of the others has that name: files in several places may.
    pub fn named_beside(mut self, others: &[Model]) -> Self {
        let name = self.id.clone();
        let mut count = 2;
        while others.iter().any(|m| m.id == self.id) {
            self.id = format!("{name} ({count})");
            count += 1;
        }
        self
    }

    /// What arms call a checkpoint: the last part of its name, since records may travel and a path
    /// would tell whose machine it was.
    pub fn id_of(checkpoint: &Checkpoint) -> String {
        let name = &checkpoint.provenance.name;
        let id = std::path::Path::new(name).file_name().unwrap_or(name.as_ref());
        id.to_string_lossy().into_owned()
    }
}

impl Arm {
    /// Whether it is of that subject and test.
    pub fn is_of(&self, subject: &Subject, test: &Test) -> bool {
        self.subject == *subject && self.test == *test
    }

    /// Nothing measured so far.
    pub fn new(subject: Subject, test: Test) -> Self {
        Self {
            subject,
            test,
            imported: None,
            speed: None,
            accuracy: None,
            choices: None,
            energy_measured: None,
            energy_modelled: None,
            energy_rated: None,
            run: 0,
        }
    }

    /// Leaves out paths; see [`Record::anonymise`].
    pub(crate) fn anonymise(&mut self, energy_root: &Path) {
        let shorten_paths = |sentence: &mut String| shorten_paths(sentence, energy_root);
        match &mut self.energy_measured {
            Some(Outcome::NotMeasured(reason)) => shorten_paths(reason),
            Some(Outcome::Measured(energy)) => energy.warnings.iter_mut().for_each(shorten_paths),
            None => {}
        }
    }
}

impl Record {
    /// Arms of our kernels whose perplexity must be equal bit for bit, two or more each: of one model and test, and with
    /// the head as it is, since a rounded one makes another model.
    pub fn identical_groups(&self) -> Vec<Vec<(&Arm, &Accuracy)>> {
        let ours =
            |a: &&Arm| a.subject.engine == "tritmark" && a.subject.head().is_none() && a.imported.is_none();
        let mut groups: Vec<Vec<(&Arm, &Accuracy)>> = Vec::new();
        for (arm, accuracy) in self.arms.iter().filter(ours).filter_map(|a| Some((a, a.accuracy.as_ref()?))) {
            let fits = |group: &&mut Vec<(&Arm, &Accuracy)>| {
                let first = group[0].0;
                first.subject.model == arm.subject.model && first.test == arm.test
            };
            match groups.iter_mut().find(fits) {
                Some(group) => group.push((arm, accuracy)),
                None => groups.push(vec![(arm, accuracy)]),
            }
        }
        groups.retain(|group| group.len() > 1);
        groups
    }

    /// Nothing measured so far, and finished now.
    pub fn new(tool: Tool, started: String, command: String, environment: Environment) -> Self {
        Self {
            schema: SCHEMA,
            tool,
            // A clock that was set back meanwhile leaves it without a length.
            finished: [now(), started.clone()]
                .into_iter()
                .max_by_key(|t| t.parse::<Timestamp>().ok())
                .unwrap_or_default(),
            started,
            command,
            suite: None,
            suite_text: None,
            resumed: false,
            environment,
            limits: Outcome::NotMeasured("this command has no tests of speed".into()),
            protocol: Protocol::untimed(),
            models: Vec::new(),
            proofs: Vec::new(),
            arms: Vec::new(),
            controls: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Leaves out what tells whose machine it was: the host's name, and paths. Energy sensors were looked for
    /// below `energy_root`.
    pub fn anonymise(&mut self, energy_root: &Path) {
        self.environment.anonymise();
        // A name that is no path may be a part of any word.
        let mut paths: Vec<(String, String)> =
            self.models.iter().map(|m| (m.name.clone(), m.id.clone())).collect();
        paths.retain(|(name, _)| name.contains(['/', '\\']));
        paths.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for note in &mut self.notes {
            for (name, id) in &paths {
                *note = note.replace(name, id);
            }
        }
        for model in &mut self.models {
            model.name = model.id.clone();
        }
        let is_model = |name: &str| self.models.iter().any(|model| model.id == name);
        self.command = without_paths(&self.command, energy_root, is_model);
        let shorten_paths = |sentence: &mut String| shorten_paths(sentence, energy_root);
        self.arms.iter_mut().for_each(|arm| arm.anonymise(energy_root));
        self.notes.iter_mut().for_each(shorten_paths);
        if let Some(text) = &mut self.suite_text {
            *text = without_folders(&with_names(text));
        }
    }
}

/// Leaves of the paths in a sentence the last part, and all of what every system has: `/sys/class/…`, which may
/// stand below `energy_root`.
pub(crate) fn shorten_paths(sentence: &mut String, energy_root: &Path) {
    // That path is known, so that it may hold spaces; of others they are the end.
    *sentence = sentence.replace(&energy_root.join("sys/").display().to_string(), "/sys/");
    let shorten = |word: &str| {
        let path = word.trim_start_matches(['`', '\'', '"', '(']);
        let front = &word[..word.len() - path.len()];
        let known = ["/sys/", "/proc/"].into_iter().find_map(|dir| path.find(dir));
        let shown = match (known, path.strip_prefix('/').and_then(|p| p.rsplit('/').next())) {
            (Some(at), _) => &path[at..],
            (None, Some(name)) if !name.is_empty() => name,
            _ => path,
        };
        format!("{front}{shown}")
    };
    *sentence = sentence.split(' ').map(shorten).collect::<Vec<_>>().join(" ");
}

/// The keys of a suite that name files.
#[derive(Deserialize)]
struct Named {
    models: Vec<Spanned<String>>,
    #[serde(default)]
    accuracy: NamedInAccuracy,
}

/// As [`Named`], of its tests of accuracy.
#[derive(Default, Deserialize)]
struct NamedInAccuracy {
    #[serde(default)]
    tasks: Vec<Spanned<String>>,
    against: Option<Spanned<String>>,
    text: Option<Spanned<String>>,
}

/// The text of a suite with the last part of each path in place of it.
fn with_names(suite: &str) -> String {
    let Ok(Named { models, accuracy }) = toml::from_str(suite) else { return suite.into() };
    let NamedInAccuracy { tasks, against, text } = accuracy;
    let mut paths: Vec<_> = models.into_iter().chain(tasks).chain(against).chain(text).collect();
    // From the end on, so that what is still to be replaced stays where it is.
    paths.sort_by_key(|path| std::cmp::Reverse(path.span().start));
    let mut suite = suite.to_owned();
    for path in paths {
        let name = Path::new(path.get_ref()).file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|name| name != path.get_ref()) {
            suite.replace_range(path.span(), &toml::Value::from(name).to_string());
        }
    }
    suite
}

/// A text of which every word that begins like a path to a folder keeps the last part alone.
fn without_folders(text: &str) -> String {
    let mut quote = None;
    let ends = |c: char| match quote {
        _ if c == '\n' => {
            quote = None;
            true
        }
        Some(open) => {
            quote = quote.filter(|_| c != open);
            quote.is_none()
        }
        None => {
            quote = matches!(c, '"' | '\'').then_some(c);
            quote.is_some() || c.is_whitespace() || matches!(c, ',' | '[' | ']' | '(' | ')' | '=')
        }
    };
    let name = |word: &str| {
        let drive =
            |word: &str| matches!(word.as_bytes(), [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic());
        let path = ["/", "./", "../", "~", "file:/"].iter().any(|start| word.starts_with(start));
        word.rsplit(['/', '\\']).next().filter(|_| path || drive(word)).map(str::to_owned)
    };
    // What stands between quotes is a path, or a text in which there may be some.
    let part = |part: &str| name(part).unwrap_or_else(|| part.to_owned());
    let word =
        |word: &str| name(word).unwrap_or_else(|| word.split_inclusive(' ').map(part).collect::<String>());
    text.split_inclusive(ends).map(word).collect()
}

/// A command line with the last part of each path in place of it; of a folder, which may be called as its owner,
/// that part too is kept for a model alone.
fn without_paths(command: &str, energy_root: &Path, is_model: impl Fn(&str) -> bool) -> String {
    let mut quoted = false;
    let words = command.split(|c: char| {
        quoted ^= c == '\'';
        c == ' ' && !quoted
    });
    let exists = |path: &Path| !path.as_os_str().is_empty() && path.exists();
    // A kernel, `i2_s/avx2`, looks like a path but leads nowhere.
    let is_path = |path: &Path| path.is_absolute() || exists(path) || path.parent().is_some_and(exists);
    let shown = |value: &str| {
        let path = Path::new(value);
        let is_folder = path.is_dir() || path == energy_root;
        match path.file_name().filter(|_| is_path(path)).map(|name| name.to_string_lossy()) {
            Some(name) if is_folder && !is_model(&name) => "DIR".to_owned(),
            Some(name) => name.into_owned(),
            None => value.to_owned(),
        }
    };
    let words = words.map(|word| {
        let inside = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\''));
        let (around, word) = inside.map_or(("", word), |word| ("'", word));
        // `--option=path` and `-mpath` are one word.
        let (option, value) = match word.split_once('=') {
            Some((option, _)) if option.starts_with('-') => word.split_at(option.len() + 1),
            _ if word.starts_with('-') && !word.starts_with("--") => {
                word.split_at_checked(2).unwrap_or((word, ""))
            }
            _ => ("", word),
        };
        let bare = value.trim_matches('\'');
        let quote = if bare.len() < value.len() { "'" } else { "" };
        // What has a comma in its name is rarer than a list.
        let value = match exists(Path::new(bare)) {
            true => shown(bare),
            false => bare.split(',').map(shown).collect::<Vec<_>>().join(","),
        };
        format!("{around}{option}{quote}{value}{quote}{around}")
    });
    words.collect::<Vec<_>>().join(" ")
}

impl Subject {
    /// A loaded model; `model` is its [`Model::id`].
    pub fn of(model: &str, loaded: &crate::model::Model) -> Self {
        let kernel = loaded.kernel();
        let (layout, tier) =
            kernel.split_once('/').map_or((None, None), |(l, t)| (Some(l.to_owned()), Some(t.to_owned())));
        Self {
            model: model.into(),
            engine: "tritmark".into(),
            layout,
            tier,
            variant: loaded.variant(),
            threads: loaded.threads() as u32,
        }
    }

    /// The candle reference, which runs on all threads.
    #[cfg(feature = "reference")]
    pub fn candle(model: &str, mode: crate::reference::ActivationMode) -> Self {
        use crate::reference::ActivationMode;
        let activations = match mode {
            ActivationMode::Int8 => "int8 activations",
            ActivationMode::Full => "full activations",
        };
        Self {
            model: model.into(),
            engine: "candle".into(),
            layout: None,
            tier: None,
            variant: Some(activations.into()),
            threads: tritmark_kernels::pool::cpus() as u32,
        }
    }

    /// Precision that the output head was rounded to, where it was.
    pub fn head(&self) -> Option<&str> {
        self.variant.as_deref()?.split(", ").find_map(|v| v.strip_prefix("head "))
    }

    /// Bits of a weight of the blocks' matrices, for a full-precision model of ours.
    pub fn float_bits(&self) -> Option<u32> {
        if self.engine != "tritmark" || self.layout.is_some() {
            return None;
        }
        match self.variant.as_deref()?.split(", ").next()? {
            "f32" => Some(32),
            "f16" | "bf16" => Some(16),
            _ => None,
        }
    }

    /// `layout/tier`, or the engine where it has no kernels of ours.
    pub fn kernel(&self) -> String {
        match (&self.layout, &self.tier) {
            (Some(layout), Some(tier)) => format!("{layout}/{tier}"),
            _ => self.engine.clone(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine)?;
        if let Some(layout) = &self.layout {
            write!(f, " {layout}")?;
        }
        if let Some(tier) = &self.tier {
            write!(f, "/{tier}")?;
        }
        if let Some(variant) = &self.variant {
            write!(f, ", {variant}")?;
        }
        write!(f, ", {}", counted(self.threads, "thread"))
    }
}

/// An arm in words: `demo: tritmark tm2/avx2, 2 threads: tg128`.
pub fn arm_name(subject: &Subject, test: &Test) -> String {
    format!("{}: {subject}: {test}", subject.model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_keep_what_every_system_has_and_lose_paths() {
        let mut text = "/home/me/root/sys/class/powercap/*/energy_uj is closed; `sudo chmod a+r \
                        /home/me/root/sys/class/x`, or '/home/me/m.csv' at 3 J/token with i2_s/avx2"
            .to_owned();
        shorten_paths(&mut text, Path::new("/"));
        let expected = "/sys/class/powercap/*/energy_uj is closed; `sudo chmod a+r /sys/class/x`, or 'm.csv' at \
                        3 J/token with i2_s/avx2";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_root_of_sensors_is_left_out_whatever_it_is_called() {
        for root in ["/tmp/x/Alice Smith/root", "/tmp/x/Alice Smith/root/", "Alice Smith/root", ".", "/"] {
            let path = Path::new(root).join("sys/class/powercap/*/energy_uj");
            let path = path.display();
            let mut text = format!("{path} is closed; `sudo chmod a+r {path}`, ../x, 3.5 J");
            shorten_paths(&mut text, Path::new(root));
            let path = "/sys/class/powercap/*/energy_uj";
            assert_eq!(text, format!("{path} is closed; `sudo chmod a+r {path}`, ../x, 3.5 J"), "{root}");
        }
    }

    #[test]
    fn commands_keep_kernels_and_lose_paths() {
        let command = "tritmark bench -k i2_s/avx2 --record /home/me/r.json --meter='/home/me/my logs/m.csv' -o md \
                       -m src/lib.rs '/home/me/a b.gguf' '--tokenizer=/home/me/a b/t.json' '-m/home/me/c d/e' -m src/model --energy-root /home/me -o=src/record";
        let expected = "tritmark bench -k i2_s/avx2 --record r.json --meter='m.csv' -o md -m lib.rs 'a b.gguf' '--tokenizer=t.json' \
                        '-me' -m model \
                        --energy-root DIR -o=DIR";
        assert_eq!(without_paths(command, Path::new("/home/me"), |name| name == "model"), expected);
    }

    #[test]
    fn an_anonymous_record_names_no_folder() {
        let root = Path::new("/me/of root");
        let reason = |path: &Path| format!("{} is closed", path.display());
        let mut record = crate::record::example();
        let below = reason(&root.join("sys/class/x"));
        record.arms[1].energy_measured = Some(Outcome::NotMeasured(below.clone()));
        record.notes = vec![below];
        let description = "description = \"mine, from /me/my/disk too\"\n";
        record.suite_text = Some(format!("{description}models = [\"mods/of me/a.gguf\"] # of /me/mods\n"));
        record.anonymise(root);
        assert_eq!(record.environment.host, None);
        let left = reason(Path::new("/sys/class/x"));
        assert_eq!(record.notes.join(""), left);
        assert_eq!(record.arms[1].energy_measured, Some(Outcome::NotMeasured(left)));
        let expected = "description = \"mine, from disk too\"\nmodels = [\"a.gguf\"] # of mods\n";
        assert_eq!(record.suite_text.as_deref(), Some(expected));
    }

    #[test]
    fn suites_keep_their_settings_and_lose_folders() {
        let text = "models = [\"/home/me/my models/a.gguf\", \"demo\", '../b/c.gguf'] # of ~/x/y, 3 GB/s\n\
                    # the model's text\ntext=\"./d/e.txt\"\n";
        let expected = "models = [\"a.gguf\", \"demo\", 'c.gguf'] # of y, 3 GB/s\n# the model's text\n\
                        text=\"e.txt\"\n";
        assert_eq!(without_folders(text), expected);
    }

    #[test]
    fn suites_lose_the_folders_of_relative_paths_and_nothing_that_looks_like_one() {
        let text = "description = \"tm2/avx2 of 2560/6912\"\nmodels = [\n  \"mods/of me/a.gguf\", # 3 GB/s\n  'demo',\n  \
                    \"mods/b \\\"c\\\".gguf --dialect i2_s\"]\nlayouts = [\"tm2/x\"]\n[accuracy]\nconvention = \"a/b\"\n\
                    text = 'mods/text.txt'\nagainst = \"mods/d/\"\ntasks = [\"sotu\", \"mods/q.jsonl\"]\n";
        let expected = "description = \"tm2/avx2 of 2560/6912\"\nmodels = [\n  \"a.gguf\", # 3 GB/s\n  'demo',\n  \
                        'b \"c\".gguf --dialect i2_s']\nlayouts = [\"tm2/x\"]\n[accuracy]\nconvention = \"a/b\"\n\
                        text = \"text.txt\"\nagainst = \"d\"\ntasks = [\"sotu\", \"q.jsonl\"]\n";
        assert_eq!(with_names(text), expected);
        assert_eq!(without_folders(expected), expected);
        assert_eq!(with_names("models = [\"mods/a.gguf\"]\n"), "models = [\"a.gguf\"]\n");
    }
}
