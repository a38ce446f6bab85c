# The mini world's own models, trained from nothing: hours on two cores. Their results are shipped in
# resources/miniworld, so that no other target needs these rules. `python -m distalign.miniworld.pack` ships new ones.

PRETRAIN = "results/{preset}/pretrain"
PRETRAIN_NEEDS = {
    "pictures": [],
    "autoencoder": ["pretrain/pictures"],
    "backbone": ["pretrain/pictures", "pretrain/autoencoder"],
    "clip": ["pretrain/pictures"],
    "dino": ["pretrain/pictures"],
    "face_embedding": ["faces/loss_faces.parquet"],
    "concept_reader": [],
}


localrules:
    pretrain,


rule pretrain:
    input:
        expand("results/{p}/pretrain/{stage}", p=PRESET, stage=PRETRAIN_NEEDS),
        expand("results/{p}/pretrain/classifiers/{c}/card.md", p=PRESET, c=STUDY.preset.classifiers),


rule pretrain_stage:
    input:
        lambda job: expand(
            "results/{preset}/{need}",
            need=PRETRAIN_NEEDS[job.stage],
            allow_missing=True,
        ),
    output:
        directory("results/{preset}/pretrain/{stage}"),
    log:
        "results/{preset}/logs/pretrain_stage/{stage}.log",
    benchmark:
        "results/{preset}/benchmarks/pretrain_stage/{stage}.tsv"
    wildcard_constraints:
        stage=one_of(PRETRAIN_NEEDS),
    conda:
        "../envs/distalign.yaml"
    threads: 8
    resources:
        **needs("pretrain_stage", mem_mb=8000, runtime=600),
    message:
        "Pretraining: {wildcards.stage}"
    script:
        "../workflow_scripts/pretrain_stage.py"


use rule train_classifier as pretrain_classifier with:
    input:
        faces=rules.train_classifier.input.faces,
        backbone="results/{preset}/pretrain/backbone",
    output:
        model="results/{preset}/pretrain/classifiers/{classifier}/model.safetensors",
        metrics="results/{preset}/pretrain/classifiers/{classifier}/metrics.parquet",
        card="results/{preset}/pretrain/classifiers/{classifier}/card.md",
    log:
        "results/{preset}/logs/pretrain_classifier/{classifier}.log",
    benchmark:
        "results/{preset}/benchmarks/pretrain_classifier/{classifier}.tsv"
    wildcard_constraints:
        classifier=one_of(STUDY.preset.classifiers),
    resources:
        **needs("pretrain_classifier", mem_mb=16000, runtime=480),
        gpu=1,
    params:
        spec=lambda job: Spec(STUDY.classifier_training_spec(job.classifier)),
        version=STAGES["classifiers"],
