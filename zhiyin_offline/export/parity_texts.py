"""Texts on which an export is compared with PyTorch: both languages, short to beyond the limit, odd characters."""

from __future__ import annotations

from encoder_service.model_directory import Role

_LONG_ENGLISH = (
    "A retired detective returns to the harbour town of his childhood, where fishing boats no longer go out and the "
    "old cinema shows the same film every night. He came for a funeral and stays for a question nobody else asks. "
)
_LONG_CHINESE = (
    "故事发生在云南的一座小城，退休的老师每天清晨都去湖边写生，画里的人却从来没有出现过。一个从上海来的女孩想弄清楚"
    "他画的是谁，于是两个人沿着茶马古道走了整整一个夏天，听了许多早已没有人唱的歌。"
)

PARITY_TEXTS: tuple[tuple[str, Role], ...] = (
    ("running shoes", "query"),
    ("跑步鞋", "query"),
    ("quiet piano music for reading at night", "query"),
    ("喜欢听音乐，最近在听民谣和 jazz", "query"),
    ("Wireless headphones with noise cancelling, 30 hours of battery, folds flat for travel.", "passage"),
    ("丽江三天两晚自由行：古城、玉龙雪山和束河的住宿与交通攻略", "passage"),
    ("Café Zürich — naïve façade, 50 % off №7 😀", "passage"),
    ("2024 年度游戏 GOTY 提名：《黑神话：悟空》 vs. Elden Ring DLC", "passage"),
    (_LONG_ENGLISH * 2, "passage"),
    (_LONG_CHINESE, "passage"),
    (_LONG_ENGLISH * 40, "passage"),  # beyond the limit of most models: truncation is part of the check
    ("x", "raw"),
)
