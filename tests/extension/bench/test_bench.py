"""The bench is as strict as PythonQt, and its stand-ins know only what the real widgets know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

UI = Path(__file__).parents[1] / "toy" / "Resources" / "UI" / "ToyLab.ui"


class TestAsStrictAsPythonQt:
    def test_a_wrong_signal_raises(self, qt):
        button = qt.QPushButton("x")
        with pytest.raises(ValueError, match="no signal 'cliked"):
            button.connect("cliked(bool)", print)
        with pytest.raises(ValueError, match="no signal"):
            button.connect("clicked(int)", print)
        with pytest.raises(ValueError, match="no signal"):
            button.connect("clicked", print)

    def test_constructors_take_no_keyword_arguments(self, qt):
        for make in (
            lambda: qt.QPushButton(text="x"),
            lambda: qt.QTimer(interval=5),
            lambda: qt.QColor(r=1),
        ):
            with pytest.raises(ValueError, match="keyword"):
                make()

    def test_widgets_take_no_new_attributes(self, qt, toy, bench):
        for widget in (qt.QPushButton("x"), toy.ui.applyButton, toy.ui.editor, toy.ui.inputs, bench.app):
            with pytest.raises(AttributeError, match="PythonQt creates no attributes"):
                widget.notes = 1
        with pytest.raises(AttributeError, match="method or signal"):
            toy.ui.applyButton.clicked = 1
        with pytest.raises(AttributeError, match="cannot be written"):
            toy.ui.applyButton.width = 1

    def test_a_class_derived_in_python_takes_attributes(self, qt):
        class Mine(qt.QWidget):
            pass

        mine = Mine()
        mine.notes = 1
        assert mine.notes == 1

    def test_set_enabled_takes_no_none(self, qt):
        with pytest.raises(TypeError):
            qt.QPushButton("x").setEnabled(None)

    def test_a_property_is_no_method(self, qt):
        label = qt.QLabel("words")
        assert label.text == "words"
        label.text = "others"
        label.setText(label.text + "!")
        assert label.text == "others!"
        with pytest.raises(TypeError, match="not callable"):
            label.text()
        with pytest.raises(TypeError, match="not callable"):
            label.width()

    def test_callbacks_get_the_arguments_that_pythonqt_gives(self, qt):
        button, got = qt.QPushButton("x"), []
        button.clicked.connect(lambda *values: got.append(values))
        button.connect("clicked(bool)", lambda *values: got.append(values))
        button.connect("clicked()", lambda *values: got.append(values))
        button.connect("clicked(bool)", lambda: got.append("none"))
        button.connect("clicked(bool)", lambda default="own": got.append(default))
        button.click()
        assert got == [(False,), (False,), (), "none", False]

    def test_enumerations_have_short_names_and_are_no_numbers(self, qt):
        box = qt.QCheckBox("x")
        box.checked = True
        assert box.checkState() == qt.Qt.Checked
        with pytest.raises(TypeError):
            int(qt.Qt.Checked)

    def test_connections_end(self, qt):
        button, got = qt.QPushButton("x"), []

        def note(checked):
            got.append(checked)

        button.connect("clicked(bool)", note)
        assert button.disconnect("clicked(bool)", note) is True
        assert button.disconnect("clicked(bool)", note) is False
        button.click()
        assert got == []

    def test_names_that_only_pythonqt_has(self, qt):
        top = qt.QWidget()
        button = qt.QPushButton("x", top)
        button.name = "press"
        assert (button.objectName, button.className()) == ("press", "QPushButton")
        assert top.findChild("QPushButton", "press") is top.findChild(qt.QPushButton, "press") is button
        button.delete()
        assert top.children() == []

    def test_a_timer_and_a_single_shot(self, qt, driver):
        timer, got = qt.QTimer(), []
        timer.singleShot = True
        timer.setInterval(1)
        timer.connect("timeout()", lambda: got.append("timer"))
        timer.start()
        qt.QTimer.singleShot(1, lambda: got.append("shot"))
        driver.wait(lambda: len(got) == 2, 5)
        assert timer.singleShot is True and timer.active is False

    def test_an_exception_in_a_callback_is_not_lost(self, bench, qt):
        def fail():
            raise ValueError("from a slot")

        button = qt.QPushButton("x")
        button.connect("clicked()", fail)
        with bench.problems.expected("from a slot"):
            button.click()
        button.click()
        with pytest.raises(AssertionError, match="from a slot"):
            bench.problems.check()
        bench.problems.exceptions.clear()


class TestStandIns:
    def test_names_that_are_not_in_the_header_are_missing(self, toy, bench):
        for widget, name in (
            (toy.ui.editor, "setMasterVolumeNode"),
            (toy.ui.editor, "segmentIds"),
            (toy.ui.inputSelector, "setNoneEnabled"),  # no slot: in Slicer only the property is there
            (toy.ui.inputs, "setCollapsed"),
            (toy.ui.path, "text"),
            (bench.app, "mainWindow"),  # neither slot nor invokable
        ):
            assert not hasattr(widget, name), name
        assert toy.parent.isEntered is True  # a property

    def test_every_public_name_of_a_stand_in_is_documented_or_a_property(self, bench):
        from PySide6 import QtCore

        from tests.slicerbench import widgets

        for cls in (*widgets.IN_SLICER, *widgets.IN_CTK):
            assert cls.__doc__ and cls.__dict__["STANDS_FOR_CPP"] is True, cls
            for name, value in vars(cls).items():
                if (
                    callable(value)
                    and not name.startswith("_")
                    and not isinstance(value, QtCore.Signal | QtCore.Property | type)
                ):
                    assert value.__doc__, f"{cls.__name__}.{name}"
            for signature, name in cls.__dict__.get("SIGNALS", {}).items():
                assert signature.endswith(")") and hasattr(cls, name), signature

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ('class="QPushButton"', 'class="ctkNoSuchButton"', "ctkNoSuchButton"),
            ('name="noneEnabled"', 'name="nonEnabled"', "nonEnabled"),
            ("mrmlSceneChanged(vtkMRMLScene*)", "sceneChanged(vtkMRMLScene*)", "sceneChanged"),
            ("<slot>setMRMLScene", "<slot>setScene", "setScene"),
            ("<receiver>inputSelector", "<receiver>selector", "selector"),
        ],
    )
    def test_a_ui_file_with_unknown_names_is_refused(self, bench, tmp_path, before, after, message):
        text = UI.read_text(encoding="utf-8")
        assert before in text
        path = tmp_path / "Wrong.ui"
        path.write_text(text.replace(before, after), encoding="utf-8")
        with pytest.raises(RuntimeError, match=message):
            bench.slicer.util.loadUI(str(path))

    def test_enumerations_of_stand_ins_are_read_from_the_ui_file(self, toy, bench):
        path = bench.ctk.ctkPathLineEdit
        assert toy.ui.path.filters == path.Files | path.Readable

    def test_paths_have_a_history_in_the_settings(self, toy, bench):
        toy.ui.path.settingKey = "Toy/Paths"
        paths = [f"/a/{number}" for number in range(7)]
        for path in (*paths, "/a/5"):
            toy.ui.path.currentPath = path
            toy.ui.path.addCurrentPathToHistory()
        settings = bench.qt.QSettings()
        assert not settings.contains("Toy/Paths")
        latest_first = ["/a/5", "/a/6", "/a/4", "/a/3", "/a/2", "/a/1", "/a/0"]
        assert settings.value("ctkPathLineEdit/Toy/Paths") == latest_first
        other = bench.ctk.ctkPathLineEdit()
        other.settingKey = "Toy/Paths"
        assert other.currentPath == "/a/5"
        listed = other.findChild("QComboBox")
        assert [listed.itemText(index) for index in range(listed.count)] == latest_first[:5]

    def test_a_collapsible_button_hides_its_children(self, toy, driver):
        toy.ui.path.hide()
        driver.click(toy.ui.inputs)
        assert toy.ui.inputs.collapsed and not toy.ui.inputSelector.visible
        driver.click(toy.ui.inputs)
        assert toy.ui.inputSelector.visible and not toy.ui.path.visible

    def test_a_slider_keeps_its_range(self, bench):
        slider, got = bench.ctk.ctkSliderWidget(), []
        slider.maximum = 10.0
        slider.connect("valueChanged(double)", got.append)
        slider.value = 25.0
        assert (slider.value, got) == (10.0, [10.0])

    def test_curves_and_tables_are_shown(self, bench, driver, tmp_path):
        slicer = bench.slicer
        chart = slicer.util.plot(np.array([[0, 1.0], [1, 0.5], [2, 0.3]]), 0, ["x", "loss"], "Loss", show=False)
        view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotViewNode")
        view.SetPlotChartNodeID(chart.GetID())
        plot = slicer.qMRMLPlotWidget()
        plot.setMRMLPlotViewNode(view)
        plot.resize(300, 200)
        assert driver.screenshot(plot, tmp_path / "plot.png").stat().st_size > 0
        table = slicer.qMRMLTableView()
        table.setMRMLTableNode(slicer.util.getNode("*table*") or None)
        assert table.model().rowCount() == 3
