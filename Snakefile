# From faces to the paper's tables and figures. config.yaml says what, presets/ in which world, profiles/ on what machine.
configfile: "config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/backbones.smk"
include: "rules/classifiers.smk"
include: "rules/finetune.smk"
include: "rules/generate.smk"
include: "rules/classify.smk"
include: "rules/aggregate.smk"
include: "rules/figures.smk"
include: "rules/gradient_study.smk"
include: "rules/claims.smk"
include: "rules/report.smk"
include: "rules/pretrain.smk"


localrules:
    all,
    tables,
    figures,
    ablations,


rule all:
    default_target: True
    input:
        table_files(PAPER),
        figure_files([*PAPER_FIGURES, *STUDY.gradient_studies]),
        f"results/{PRESET}/results.parquet",
        CLAIM_FILES,
        report_pages(),


rule tables:
    input:
        table_files(PAPER),


rule figures:
    input:
        figure_files([*PAPER_FIGURES, *STUDY.gradient_studies]),


rule ablations:
    input:
        table_files(ABLATIONS),
        figure_files(ABLATION_FIGURES),
        f"results/{PRESET}/ablations.parquet" if ABLATIONS else [],


onstart:
    begin()
    print(f"preset {PRESET}: {STUDY.preset.description}")
