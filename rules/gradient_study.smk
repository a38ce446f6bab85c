# The paper's section 4.2 and Figure 1: what each gradient estimator does, on a grid of guidance, steps and models.


localrules:
    plot_gradient_study,


rule train_early_backbone:
    input:
        backbone="results/{preset}/backbone",
    output:
        model=directory("results/{preset}/pretrain_early/backbone"),
    log:
        "results/{preset}/logs/train_early_backbone.log",
    benchmark:
        "results/{preset}/benchmarks/train_early_backbone.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("train_early_backbone", mem_mb=8000, runtime=120),
    params:
        spec=Spec(early_spec(STUDY.preset)),
        version=STAGES["early_backbone"],
    message:
        "The diffusion model early in its training"
    script:
        "../workflow_scripts/train_early_backbone.py"


rule study_gradients:
    input:
        prompts=STUDY.preset.prompts[OCCUPATIONS].file,
        backbones=study_backbones,
        encoders=study_encoders,
    output:
        rows="results/{preset}/gradient_studies/{study}.parquet",
    log:
        "results/{preset}/logs/study_gradients/{study}.log",
    benchmark:
        "results/{preset}/benchmarks/study_gradients/{study}.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("study_gradients", mem_mb=32000, runtime=1440),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.gradient_study_spec(job.study)),
        version=STAGES["gradient_study"],
    message:
        "Gradient estimators: {wildcards.study}"
    script:
        "../workflow_scripts/study_gradients.py"


rule plot_gradient_study:
    input:
        rows="results/{preset}/gradient_studies/{study}.parquet",
    output:
        pdf="results/{preset}/figures/{study}.pdf",
        svg="results/{preset}/figures/{study}.svg",
        parquet="results/{preset}/figures/{study}.parquet",
        png=report(
            "results/{preset}/figures/{study}.png",
            caption="../report/gradient_study.rst",
            category="Figures",
            labels={"figure": "{study}"},
        ),
    log:
        "results/{preset}/logs/plot_gradient_study/{study}.log",
    benchmark:
        "results/{preset}/benchmarks/plot_gradient_study/{study}.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda job: Spec(title=STUDY.gradient_studies[job.study].title),
        version=STAGES["figures"],
    message:
        "Figure {wildcards.study}"
    script:
        "../workflow_scripts/plot_gradient_study.py"
