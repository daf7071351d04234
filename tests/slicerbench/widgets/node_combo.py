"""qMRMLNodeComboBox."""

from __future__ import annotations

import slicer
from PySide6 import QtCore, QtWidgets

from tests.slicerbench.widgets.base import kept, observe, observe_nodes, passed_on, private


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists nodes of a scene.

    Not done: the models, editCurrentNode and renameCurrentNode, the menu (addNode and removeCurrentNode work).
    As in Slicer it is disabled until it has a scene, and with noneEnabled off the first node is chosen by itself then.
    What it does with the scene is read from copies of qMRMLSceneModel.cxx and qMRMLNodeComboBox.cxx: when the
    chosen node goes, its neighbour is chosen, even with noneEnabled; the list is made anew after a scene was closed or
    imported, and then the first node is chosen, whatever was chosen before; where no node is left, no signal tells.
    """

    STANDS_FOR_CPP = True
    SIGNALS = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_currentNodeValid",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "nodeAboutToBeRemoved",
        "nodeAboutToBeEdited(vtkMRMLNode*)": "nodeAboutToBeEdited",
        "currentNodeRenamed(QString)": "currentNodeRenamed",
    }
    currentNodeChanged = QtCore.Signal(object)
    _currentNodeValid = QtCore.Signal(bool)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)
    nodeAboutToBeEdited = QtCore.Signal(object)
    currentNodeRenamed = QtCore.Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        combo = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(combo)
        self._d = private(scene=None, combo=combo, observed=[], attributes=[], labels={}, node_id="", filling=False)
        combo.currentIndexChanged.connect(self._chosen)
        combo.activated.connect(self._activated)
        combo.setEnabled(False)

    nodeTypes = kept("nodeTypes", "QStringList", [], "_fill")
    hideChildNodeTypes = kept("hideChildNodeTypes", "QStringList", [], "_fill")
    showHidden = kept("showHidden", bool, False, "_fill")
    showChildNodeTypes = kept("showChildNodeTypes", bool, True, "_fill")
    noneEnabled = kept("noneEnabled", bool, False, "_fill")
    noneDisplay = kept("noneDisplay", str, "None", "_fill")
    addEnabled = kept("addEnabled", bool, True)
    removeEnabled = kept("removeEnabled", bool, True)
    editEnabled = kept("editEnabled", bool, False)
    renameEnabled = kept("renameEnabled", bool, False)
    baseName = kept("baseName", str, "")
    selectNodeUponCreation = kept("selectNodeUponCreation", bool, True)
    interactionNodeSingletonTag = kept("interactionNodeSingletonTag", str, "")
    sizeAdjustPolicy = passed_on(QtWidgets.QComboBox.SizeAdjustPolicy, "combo", "sizeAdjustPolicy")
    currentNodeID = QtCore.Property(str, lambda self: self._d.node_id, lambda self, value: self.setCurrentNodeID(value))

    def mrmlScene(self):
        """Return the scene, None before it is set."""
        return self._d.scene

    def setMRMLScene(self, scene) -> None:
        """Set the scene whose nodes are listed; None empties the list."""
        private_ = self._d
        for tag in private_.observed:
            private_.scene.RemoveObserver(tag)
        private_.scene, private_.observed = scene, []
        if scene is not None:
            kind, combo = slicer.vtkMRMLScene, qMRMLNodeComboBox
            private_.observed = [
                observe(self, scene, kind.NodeAddedEvent, combo._node_added),
                observe_nodes(self, scene, kind.NodeAboutToBeRemovedEvent, combo._node_going),
                observe(self, scene, kind.EndCloseEvent, combo._made_anew),
                observe(self, scene, kind.EndImportEvent, combo._made_anew),
            ]
        private_.combo.setEnabled(scene is not None)
        self._fill()

    def currentNode(self):
        """Return the chosen node, None for none."""
        return self._d.scene.GetNodeByID(self._d.node_id) if self._d.scene is not None and self._d.node_id else None

    def currentNodeId(self) -> str:
        """Return what `currentNodeID` says; deprecated in Slicer."""
        return self._d.node_id

    def setCurrentNode(self, node) -> None:
        """Choose a node, by itself or by its ID; None chooses none."""
        self.setCurrentNodeID(node if isinstance(node, str) else node.GetID() if node is not None else "")

    def setCurrentNodeID(self, node_id: str | None) -> None:
        """Choose a node by its ID; one that is not listed chooses none."""
        index = self._d.combo.findData(node_id) if node_id else (0 if self.noneEnabled else -1)
        if index < 0 and self.noneEnabled:
            index = 0
        self._d.combo.setCurrentIndex(index)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose by the position in the list of nodes."""
        self._d.combo.setCurrentIndex(index + (1 if self.noneEnabled else 0))

    def nodeCount(self) -> int:
        """Return how many nodes are listed."""
        return len(self._nodes())

    def nodeFromIndex(self, index: int):
        """Return the node at a position, None beyond the end."""
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def addAttribute(self, node_type: str, name: str, value: object = None) -> None:
        """List nodes of a type only where they have this attribute (and value)."""
        self._d.attributes.append((node_type, name, value))
        self._fill()

    def removeAttribute(self, node_type: str, name: str) -> None:
        """Undo addAttribute."""
        self._d.attributes = [given for given in self._d.attributes if given[:2] != (node_type, name)]
        self._fill()

    def setNodeTypeLabel(self, label: str, node_type: str) -> None:
        """Set the word for a type in the menu."""
        self._d.labels[node_type] = label

    def nodeTypeLabel(self, node_type: str) -> str:
        """Set the word for a type in the menu."""
        return self._d.labels.get(node_type, "")

    def addNode(self, node_type: str = ""):
        """Do what the menu's «Create new» does."""
        if node_type and node_type not in self.nodeTypes:
            return None
        node = self._d.scene.AddNewNodeByClass(node_type or self.nodeTypes[0], self.baseName)
        self.nodeAddedByUser.emit(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        return node

    def removeCurrentNode(self) -> None:
        """Do what the menu's «Delete current» does."""
        if self.currentNode() is not None:
            self._d.scene.RemoveNode(self.currentNode())

    def _matches(self, node) -> bool:
        """Return whether this node is listed."""
        types = self.nodeTypes
        if self.showChildNodeTypes:
            fits = any(node.IsA(name) for name in types) and not any(node.IsA(t) for t in self.hideChildNodeTypes)
        else:
            fits = node.GetClassName() in types
        for node_type, name, value in self._d.attributes:
            if node.IsA(node_type):
                has = node.GetAttribute(name)
                fits = fits and has is not None and (value is None or has == str(value))
        return fits and (self.showHidden or not node.GetHideFromEditors())

    def _nodes(self) -> list:
        scene = self._d.scene
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene is not None else []
        return [node for node in nodes if self._matches(node)]

    def _node_added(self) -> None:
        """Ids and references are not valid before an import has ended, so nothing is listed before."""
        if not self._d.scene.IsImporting():
            self._list(self._nodes())

    def _node_going(self, node) -> None:
        if self._d.scene.IsClosing():
            return
        nodes = self._nodes()
        row = next((row for row, other in enumerate(nodes) if other is node), None)
        if row is not None:
            del nodes[row]
            self._list(nodes)
            if node.GetID() == self._d.node_id:
                self._jump(nodes[min(row, len(nodes) - 1)] if nodes else None)

    def _made_anew(self) -> None:
        nodes = self._nodes()
        self._list(nodes)
        if self._d.node_id:
            self._jump(nodes[0] if nodes else None)

    def _jump(self, node) -> None:
        """Choose what the row before is not: a neighbour, or else a menu entry below the nodes, which tells nobody."""
        entries = self.addEnabled or self.removeEnabled or self.editEnabled or self.renameEnabled
        if node is None and entries:
            self._d.node_id = ""
        else:
            self.setCurrentNode(node)
            self._chosen()

    def _list(self, nodes: list) -> None:
        """List nodes, with nothing else chosen; the choice may be of none of them."""
        self._d.filling = True
        self._write(nodes)
        self._d.combo.setCurrentIndex(self._d.combo.findData(self._d.node_id))
        self._d.filling = False

    def _write(self, nodes: list) -> None:
        private_ = self._d
        private_.combo.clear()
        if self.noneEnabled and private_.scene is not None:
            private_.combo.addItem(self.noneDisplay, "")
        for node in nodes:
            private_.combo.addItem(node.GetName(), node.GetID())

    def _fill(self) -> None:
        """List the nodes anew, keeping the choice where it can be kept."""
        private_ = self._d
        private_.filling = True
        self._write(self._nodes())
        index = private_.combo.findData(private_.node_id) if private_.node_id else -1
        private_.combo.setCurrentIndex(index if index >= 0 else 0 if private_.combo.count else -1)
        private_.filling = False
        self._chosen()

    def _chosen(self) -> None:
        if self._d.filling:
            return
        node_id = self._d.combo.currentData or ""
        if node_id != self._d.node_id:
            self._d.node_id = node_id
            node = self.currentNode()
            self.currentNodeChanged.emit(node)
            self._currentNodeValid.emit(node is not None)
            self.currentNodeIDChanged.emit(node_id)

    def _activated(self) -> None:
        self.nodeActivated.emit(self.currentNode())
