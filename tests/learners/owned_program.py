"""What an owner has already: a program that trains LightGBM on the rows of a folder, or goes on from its parent."""

import json
import sys
from pathlib import Path

import duckdb
import lightgbm as lgb
import numpy as np

folder = Path(sys.argv[-1])
job = json.loads((folder / "job.json").read_text())
rows = duckdb.sql(f"select * from '{folder / job['rows']}'").fetchnumpy()
names = [feature["name"] for feature in job["features"]]
matrix = np.column_stack([np.ma.filled(rows[name].astype(float), np.nan) for name in names])
categories = [index for index, feature in enumerate(job["features"]) if feature["type"] == "category"]
table = lgb.Dataset(
    matrix, np.asarray(rows["label"]), feature_name=names, categorical_feature=categories, free_raw_data=False
)
settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
parent = str(folder / job["parent"]) if job["parent"] else None
lgb.train(settings | {"seed": job["seed"]}, table, 20, init_model=parent).save_model(folder / job["model"])
