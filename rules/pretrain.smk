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
        expand(
            "results/{p}/pretrain/classifiers/{c}", p=PRESET, c=STUDY.preset.classifiers
        ),


rule pretrain_stage:
    input:
        lambda job: expand(
            "results/{preset}/{need}",
            need=PRETRAIN_NEEDS[job.stage],
            allow_missing=True,
        ),
    output:
        directory("results/{preset}/pretrain/{stage}"),
    wildcard_constraints:
        stage=one_of(PRETRAIN_NEEDS),
    log:
        "results/{preset}/logs/pretrain_stage/{stage}.log",
    benchmark:
        "results/{preset}/benchmarks/pretrain_stage/{stage}.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=600,
    message:
        "Pretraining: {wildcards.stage}"
    script:
        "../workflow_scripts/pretrain_stage.py"


rule pretrain_classifier:
    input:
        faces=lambda job: expand(
            "results/{preset}/faces/{dataset}.parquet",
            dataset=sorted(
                set(STUDY.preset.classifiers[job.classifier].labels.values())
            ),
            allow_missing=True,
        ),
        backbone="results/{preset}/pretrain/backbone",
    output:
        directory("results/{preset}/pretrain/classifiers/{classifier}"),
    log:
        "results/{preset}/logs/pretrain_classifier/{classifier}.log",
    benchmark:
        "results/{preset}/benchmarks/pretrain_classifier/{classifier}.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        spec=lambda job: Spec(STUDY.classifier_spec(job.classifier)),
    message:
        "Training classifier {wildcards.classifier} from nothing"
    script:
        "../workflow_scripts/pretrain_classifier.py"
