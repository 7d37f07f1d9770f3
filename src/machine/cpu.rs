//! What the processor says of itself, and the features that the binary was compiled to require.

use super::Environment;

/// Fills in name, identity, features and caches as far as instructions of the CPU tell them.
pub fn describe(env: &mut Environment) {
    env.compiled_features =
        env!("TRITMARK_TARGET_FEATURES").split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect();
    describe_arch(env);
}

#[cfg(target_arch = "x86_64")]
fn describe_arch(env: &mut Environment) {
    let id = raw_cpuid::CpuId::new();
    if let Some(brand) = id.get_processor_brand_string() {
        env.cpu = brand.as_str().trim().to_owned();
    }
    if let Some(f) = id.get_feature_info() {
        env.cpu_id =
            Some(format!("family {} model {} stepping {}", f.family_id(), f.model_id(), f.stepping_id()));
    }
    env.virtualisation = id.get_hypervisor_info().map(|h| format!("{:?} hypervisor", h.identify()));
    for cache in id.get_cache_parameters().into_iter().flatten() {
        use raw_cpuid::CacheType::{Data, Instruction, Unified};
        let kind = match cache.cache_type() {
            Data => "d",
            Instruction => "i",
            Unified => "",
            _ => continue,
        };
        let bytes = cache.associativity()
            * cache.physical_line_partitions()
            * cache.coherency_line_size()
            * cache.sets();
        env.caches.push((format!("L{}{kind}", cache.level()), bytes as u64));
    }

    let basic = id.get_feature_info();
    let extended = id.get_extended_feature_info();
    /// Sorts features into usable ones and ones that the CPU has but the system does not enable.
    macro_rules! features {
        ($($name:tt $leaf:ident $getter:ident,)*) => { $(
            if is_x86_feature_detected!($name) {
                env.features.push($name.into());
            } else if $leaf.as_ref().is_some_and(|leaf| leaf.$getter()) {
                env.features_off.push($name.into());
            }
        )* };
    }
    features! {
        "ssse3" basic has_ssse3,
        "sse4.1" basic has_sse41,
        "avx" basic has_avx,
        "f16c" basic has_f16c,
        "fma" basic has_fma,
        "bmi2" extended has_bmi2,
        "avx2" extended has_avx2,
        "avxvnni" extended has_avx_vnni,
        "gfni" extended has_gfni,
        "avx512f" extended has_avx512f,
        "avx512bw" extended has_avx512bw,
        "avx512vl" extended has_avx512vl,
        "avx512vnni" extended has_avx512vnni,
        "avx512vbmi" extended has_avx512vbmi,
        "avx512vbmi2" extended has_avx512vbmi2,
        "avx512bitalg" extended has_avx512bitalg,
        "avx512bf16" extended has_avx512_bf16,
    }
}

#[cfg(target_arch = "aarch64")]
fn describe_arch(env: &mut Environment) {
    use std::arch::is_aarch64_feature_detected as has;
    let features = [
        ("neon", has!("neon")),
        ("fp16", has!("fp16")),
        ("dotprod", has!("dotprod")),
        ("i8mm", has!("i8mm")),
        ("bf16", has!("bf16")),
        ("sve", has!("sve")),
        ("sve2", has!("sve2")),
    ];
    env.features = features.into_iter().filter(|f| f.1).map(|f| f.0.to_owned()).collect();
    #[cfg(target_os = "macos")]
    describe_macos(env);
}

/// macOS tells through `sysctl` what Linux has in files.
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
fn describe_macos(env: &mut Environment) {
    let get = |name: &str| {
        let out = std::process::Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let number = |name: &str| get(name)?.parse::<u64>().ok();
    env.cpu = get("machdep.cpu.brand_string").unwrap_or_default();
    env.host = get("kern.hostname");
    env.os = format!("macos {}", get("kern.osproductversion").unwrap_or_default());
    env.cores = number("hw.physicalcpu").map(|n| n as u32);
    env.memory = number("hw.memsize");
    for (kind, name) in [("P", "hw.perflevel0.physicalcpu"), ("E", "hw.perflevel1.physicalcpu")] {
        env.core_kinds.extend(number(name).map(|n| (kind.to_owned(), n as u32)));
    }
    for (level, name) in
        [("L1d", "hw.perflevel0.l1dcachesize"), ("L2", "hw.perflevel0.l2cachesize"), ("L3", "hw.l3cachesize")]
    {
        env.caches.extend(number(name).map(|n| (level.to_owned(), n)));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn describe_arch(_: &mut Environment) {}
