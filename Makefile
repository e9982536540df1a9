.PHONY: minute dev fmt lint types test fuzz soak golden dry-run golden-figures wheel constraints kernels resources counters gpu gpu-tune gpu-long sweep docs reference readme zoo devices slurm memory claims suites chaos export speeds calibrate twins gate-sessions gate-calibration scale measuring plotly

dev:   ## an editable install that type checkers follow too; again after adding a file
	pip install -e '.[test]' --config-settings editable_mode=strict

fmt:
	ruff format . && ruff check --fix .

lint:
	ruff format --check . && ruff check .

types: ## on the package as it is installed
	rm -rf build/types && pip install --quiet --no-deps --target build/types .
	cd build/types && python -P -m mypy --config-file ../../pyproject.toml
	python -P -m mypy --config-file pyproject.toml .ci/gpu.py

test:
	pytest

FUZZ = 100000
fuzz: ## FUZZ inputs, half of them damaged, for all that reads what a user gives; other ones each time; a quarter of an hour
	VBENCH_FUZZ=$(FUZZ) timeout 3600 pytest -n 2 -rP tests/test_fuzz.py
soak: ## 2,000 tiny cells through the real launcher: memory, handles and time a cell stay flat, and docs/faults.md; some minutes
	PYTHONPATH=$(CURDIR)/tests python -P tests/soak.py --page docs/faults.md
	PYTHONPATH=$(CURDIR)/tests python -P tests/loop_cost.py 1000 10000 --page docs/faults.md

golden: ## every published logit in every mode and form; more than half an hour
	pytest -m full

dry-run: ## every model's pass on CUDA without CUDA, what models launch compiled, the steps of make gpu; five minutes
	pytest -m 'full or not full' tests/test_cuda_dry_run.py tests/test_gpu_steps.py

golden-figures: ## the small pictures that tests compare figures with, drawn anew; look at them
	VBENCH_REFRESH=1 pytest -n 0 tests/test_figures.py -k golden

wheel: ## the wheel alone, unpacked and run outside the checkout
	rm -rf build/wheel && pip wheel --quiet --no-deps --wheel-dir build/wheel .
	pip install --quiet --no-deps --target build/wheel/site build/wheel/vbench_backbones-*.whl
	cd build/wheel && PYTHONPATH=site python -P -m vbench sweep --models vig_t --res 64 --seconds 0.1 --batch 1 -o run

constraints: ## constraints/tested.txt, the versions in this environment; before a release, after `make test` has passed
	python -P -m vbench.constraints.tested constraints/tested.txt

kernels: ## every form against the recurrence, every Triton kernel compiled ahead of time; no GPU needed
	python -P -m vbench kernels check --device cpu
	python -P -m vbench kernels compile

TRITONS = 3.6 3.7 3.8 3.9
resources: ## kernels/fused/resources.csv anew, by each Triton that we support, in a folder of its own; half an hour
	for minor in $(TRITONS); do \
		pip install --quiet --no-deps --upgrade --target build/triton/$$minor "triton==$$minor.*" && \
		PYTHONPATH=$(CURDIR)/build/triton/$$minor python -P -m vbench kernels compile --update || exit 1; done

counters: ## the baseline of the counters gate, for its own cells; look at what changed, and commit it with its cause
	python -P -m vbench gate --counters results/counters.json --write

GPU = results/$$(python -P .ci/gpu.py --name)
gpu:   ## whatever awaits a GPU, into results/DEVICE; BUDGET=480 leaves out what does not fit into 480 s, STEPS=sweep,check takes these
	python -P .ci/gpu.py $(if $(BUDGET),--budget $(BUDGET)) $(if $(STEPS),--only $(STEPS))

gpu-tune: ## the fastest choices of the fused kernels on this GPU, for tuning.toml; under build, a quarter of an hour or more
	python -P -m vbench kernels tune --device cuda -o build/tuning.toml

gpu-long: ## what takes longer: what the doctor finds, the README's sweep, and what the papers' claims need
	python -P -m vbench doctor --device cuda
	python -P -m vbench sweep --suite resolution --device cuda --dtype float32,bfloat16 --backend eager,cudagraph -o $(GPU)-resolution
	python -P -m vbench sweep --suite claims --device cuda -o $(GPU)-claims

sweep: ## the README's sweep again, on this machine
	python -P -m vbench sweep --suite resolution -o results/cpu

docs:  ## the site, under build/docs; pip install -e '.[docs]' first; it needs no network
	python -P -m sphinx -W --keep-going -q -b html docs build/docs

reference: ## docs/reference/commands.md: every command and option, from the program
	python -P docs/make_reference.py docs/reference/commands.md

minute: ## the README's first minute again, on this machine; nothing else may run
	python -P -m vbench sweep --suite minute --fresh -o results/minute

readme: ## the README's table, findings and figure, and docs/results.md, from the committed records
	python -P -m vbench report results/cpu
	python -P -m vbench.reports.readme results/cpu README.md docs/results.md

zoo:   ## docs/zoo.md: parameters and MACs of every variant beside the published ones
	python -P -m vbench.reports.zoo docs/zoo.md

devices: ## docs/devices.md: what each kind of device can do, from the tables of kinds and forms
	python -P -m vbench.reports.devices docs/devices.md

slurm: ## a sweep on a real Slurm of two nodes on this machine, one of which breaks off; some minutes; see tests/slurm.py
	python -P -m pytest -n 0 -s -m full tests/test_slurm.py

TINY = vig_t,vrwkv_t,vrwkv6_t,vil2_t,vir_s,vision_gru_t,vim_t,vmamba_t,mlla_t,deit_t,swin_t
EXPORTED = $(TINY)
export: ## results/export.csv and the table in docs/export.md: EXPORTED, the tiny models, exported and checked; an hour or more
	mkdir -p build
	-python -P -m vbench export $(EXPORTED) --mode parallel,recurrent \
		--to torch.export,onnx,aoti --check --timeout 3600 --json -o build/exports > build/export.json
	python -P -m vbench.reports.exports build/export.json
	python -P -m vbench.reports.exports --page docs/export.md

speeds: ## results/cpu-224 and the table in docs/models.md: tiny models beside DeiT-T at 224 px; some minutes; nothing else may run
	python -P -m vbench sweep --models $(TINY) --res 224 --modes parallel,recurrent --batch 1 --pairs none --rigor quick \
		--fresh -o build/speeds
	mkdir -p results/cpu-224 && cp build/speeds/records.jsonl build/speeds/run.json results/cpu-224/
	python -P -m vbench.reports.speeds --profile results/cpu-224
	python -P -m vbench.reports.speeds results/cpu-224 docs/models.md

memory: ## docs/memory.md: predicted memory beside published figures
	python -P -m vbench.reports.predicted docs/memory.md

claims: ## docs/claims.md: which of the papers' claims hold, by the committed records; put further runs before the page
	python -P -m vbench.reports.claims results/cpu docs/claims.md

plotly: ## reports/page/plotly-basic.min.js, the newest basic bundle of plotly.js and its licence, from npm; then run the tests of the page
	mkdir -p build/plotly && cd build/plotly && npm pack --silent plotly.js-basic-dist-min && tar xzf plotly.js-basic-dist-min-*.tgz
	cp build/plotly/package/plotly-basic.min.js reports/page/
	cp build/plotly/package/LICENSE reports/page/plotly-LICENSE.txt && rm -r build/plotly

suites: ## docs/suites.md: what each suite answers, its time and its cells
	python -P -m vbench.reports.suites docs/suites.md

chaos: ## a sweep and its processes killed at random, KILLS times, whether each row is there at the end; about ten minutes
	PYTHONPATH=tests python -P tests/chaos.py --kills $(or $(KILLS),200) --seed $(or $(SEED),0)

calibrate: ## twenty sweeps of the same, with twenty seeds; half an hour or more; nothing else may run
	for seed in $$(seq -w 1 20); do \
		python -P -m vbench sweep --suite aa --pairs none --seed $$seed --fresh -o build/aa/$$seed && \
		mkdir -p results/calibration/cpu/aa-$$seed && \
		cp build/aa/$$seed/records.jsonl build/aa/$$seed/run.json results/calibration/cpu/aa-$$seed/; done

twins: ## twenty sessions of turns between a cell and itself; a quarter of an hour; nothing else may run
	python -P -m vbench.doctor.twins --sessions 20 -o results/calibration/cpu/twins.jsonl

GATE = results/calibration/cpu/gate
gate-sessions: ## forty more real sessions of equal code and forty of slowed code; some three and a half hours, nothing else may run
	for turn in $$(seq 1 4); do \
		python -P -m vbench.gate.calibration --sessions 10 --seed $${turn}0000 -o $(GATE)/sessions.jsonl.gz && \
		python -P -m vbench.gate.calibration --sessions 10 --seed $${turn}5000 --slowdown 0.05 -o $(GATE)/sessions.jsonl.gz; done

gate-calibration: ## what these sessions come to, many more simulated ones, the power curve, and docs/gate.md
	python -P -m vbench.reports.gate_calibration $(GATE) docs/gate.md

scale: ## what commands take on 1,000 to 1,000,000 records: results/scale.csv and the table in docs/reports.md; about ten minutes, 5 GB of disk
	python -P .ci/scale.py

measuring: ## the tables of docs/measuring.md, from the committed records
	python -P -m vbench.reports.calibration results/calibration/cpu docs/measuring.md
